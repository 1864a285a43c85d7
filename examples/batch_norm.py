"""BatchNorm bears a larger rate and a worse start: a deep network, by rate and by scale of its initial weights.

    pip install '.[demo]' && python examples/batch_norm.py

Each layer multiplies the signal by the scale of its weights. He's scale keeps the signal's size; half of it
leaves 1/64 behind six layers, twice of it makes 64 times as much, and the network trains at He's scale alone,
and at few rates. BatchNorm brings the signal back to one size behind every layer: now the network trains from a
sixteenth to four times He's scale, and at four times the rate. The scale still has a say in the rate, since a
step turns small weights further: they get by with a smaller one.
"""

from types import SimpleNamespace

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastopt
from command import picture_argument
from network import Linear, accuracy, forward, learnt, loss_and_grads, make_network

NETWORK = {"layers": 6, "hidden": 32, "dropout": 0.0}
EPOCHS, BATCH = 5, 64
RATES = tuple(4.0**k for k in range(-4, 2))
SCALES = tuple(2.0**k for k in range(-4, 4))  # of the weights, in units of He's
TRAINED = 0.8  # of the test digits, from which on a network counts as trained


def data():
    """``x`` (N, 64), standardised, and ``y`` (N, 10), one-hot: to train and to test with."""
    images, labels = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(images, np.eye(10)[labels], random_state=0, stratify=labels)
    standardizer = fastopt.data.Standardizer().fit(x)
    x, x_test = standardizer.transform(x), standardizer.transform(x_test)
    return [[a.astype("float32") for a in part] for part in ((x, y), (x_test, y_test))]


def start(batch_norm, scale, seed=0):
    network = make_network(np, 64, 10, SimpleNamespace(**NETWORK, batch_norm=batch_norm, seed=seed))
    for layer in network:
        if isinstance(layer, Linear):
            layer.w *= np.float32(scale)
    return network


def signal(batch_norm, scale, seed=0):
    """The root mean square of what the last hidden layer makes of the training digits at the start."""
    (x, _), _ = data()
    hidden = forward(start(batch_norm, scale, seed)[:-1], {}, x, training=True)
    return float(np.sqrt(np.square(hidden).mean()))


def read(batch_norm, scale, lr, seed=0):
    """The share of test digits that the trained network reads."""
    training, test = data()
    network = start(batch_norm, scale, seed)
    params = learnt(network)
    opt = fastopt.SGD(params, lr=lr)
    batches = fastopt.data.minibatches(*training, batch_size=BATCH, seed=seed, drop_last=True)
    with np.errstate(over="ignore", invalid="ignore"):  # where the rate was too high
        for _ in range(EPOCHS):
            for batch in batches:
                opt.step(loss_and_grads(network, params, *batch)[1])
        return accuracy(network, params, *test)


def survey(batch_norm, seed=0):
    """``read`` at all scales (rows) and rates (columns)."""
    return np.array([[read(batch_norm, scale, lr, seed) for lr in RATES] for scale in SCALES])


def span(values, trained):
    """The least and the largest of the values at which the network trains."""
    good = [value for value, yes in zip(values, trained, strict=True) if yes]
    return good[0], good[-1]


def draw(tables, file):
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (name, table) in zip(axes, tables.items(), strict=True):
        image = ax.imshow(table, origin="lower", aspect="auto", cmap="cividis", vmin=0, vmax=1)
        for (i, j), share in np.ndenumerate(table):
            ax.text(j, i, f"{share:.0%}", ha="center", va="center", color="k" if share > 0.5 else "w")
        ax.set(title=name, xlabel="learning rate of SGD")
        ax.set_xticks(range(len(RATES)), [fraction(lr) for lr in RATES])
    axes[0].set_yticks(range(len(SCALES)), [fraction(scale) for scale in SCALES])
    axes[0].set_ylabel("initial weights, in units of He's")
    figure.colorbar(image, ax=axes, format=PercentFormatter(1), label="test digits read")
    figure.savefig(file, dpi=120)


def fraction(value):
    return f"{value:g}" if value >= 1 else f"1/{1 / value:g}"


def main(file):
    tables = {}
    for batch_norm, name in ((False, "without BatchNorm"), (True, "with BatchNorm")):
        tables[name] = survey(batch_norm)
        trained = tables[name] >= TRAINED
        sizes = ", ".join(f"{signal(batch_norm, scale):.2g}" for scale in (0.5, 1, 2))
        print(f"{name}: at half, once and twice He's scale the last hidden layer's signal is {sizes}")
        print(
            f"  reads {TRAINED:.0%} of the test digits in {trained.sum()} of {trained.size} cases, from"
        )
        for what, values, axis in (("rate", RATES, 0), ("scale", SCALES, 1)):
            least, largest = span(values, trained.any(axis=axis))
            print(f"  {what} {fraction(least)} to {what} {fraction(largest)}")
    draw(tables, file)
    print(f"the picture: {file}")


if __name__ == "__main__":
    main(picture_argument(__doc__, "batch_norm.png"))
