"""BatchNorm tolerates a larger learning rate and a worse initialization: a deep network with many of both.

    pip install '.[demo]' && python examples/batch_norm.py

Each layer multiplies the signal by the scale of its weights. He's scale preserves the size of the signal. With
half of it only 1/64 of the signal is left after six layers; with twice it, the signal grows 64-fold. Without
BatchNorm the network therefore trains only at He's scale, and at few learning rates. BatchNorm normalizes the
signal after every layer: the network then trains from a sixteenth to four times He's scale, and at four times
the learning rate. The scale still affects the choice of the learning rate: the same step turns small weights
further, so that a smaller learning rate is enough for them.
"""

from types import SimpleNamespace

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastopt
from command import picture_argument
from network import Linear, accuracy, forward, learnable_params, loss_and_grads, make_network

NETWORK = {"layers": 6, "hidden": 32, "dropout": 0.0}
EPOCHS, BATCH = 5, 64
LEARNING_RATES = tuple(4.0**k for k in range(-4, 2))
SCALES = tuple(2.0**k for k in range(-4, 4))  # of the initial weights, relative to He's
TRAINED = 0.8  # test accuracy from which on a network counts as trained


def data():
    """Return the training and the test part: ``x`` (N, 64), standardized, and ``y`` (N, 10), one-hot."""
    images, labels = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(images, np.eye(10)[labels], random_state=0, stratify=labels)
    standardizer = fastopt.data.Standardizer().fit(x)
    x, x_test = standardizer.transform(x), standardizer.transform(x_test)
    return [[a.astype("float32") for a in part] for part in ((x, y), (x_test, y_test))]


def initial_network(batch_norm, scale, seed=0):
    """Return a network whose weights are ``scale`` times He's."""
    network = make_network(np, 64, 10, SimpleNamespace(**NETWORK, batch_norm=batch_norm, seed=seed))
    for layer in network:
        if isinstance(layer, Linear):
            layer.w *= np.float32(scale)
    return network


def hidden_rms(batch_norm, scale, seed=0):
    """Return the RMS of the last hidden layer's output for the training digits, before training."""
    (x, _), _ = data()
    hidden = forward(initial_network(batch_norm, scale, seed)[:-1], {}, x, training=True)
    return float(np.sqrt(np.square(hidden).mean()))


def train_and_evaluate(batch_norm, scale, lr, seed=0):
    """Train a network and return its test accuracy."""
    training, test = data()
    network = initial_network(batch_norm, scale, seed)
    params = learnable_params(network)
    opt = fastopt.SGD(params, lr=lr)
    batches = fastopt.data.minibatches(*training, batch_size=BATCH, seed=seed, drop_last=True)
    with np.errstate(over="ignore", invalid="ignore"):  # if the learning rate is too high
        for _ in range(EPOCHS):
            for batch in batches:
                opt.step(loss_and_grads(network, params, *batch)[1])
        return accuracy(network, params, *test)


def survey(batch_norm, seed=0):
    """Return the test accuracies for all scales (rows) and learning rates (columns)."""
    return np.array(
        [[train_and_evaluate(batch_norm, scale, lr, seed) for lr in LEARNING_RATES] for scale in SCALES]
    )


def trained_range(values, trained):
    """Return the smallest and the largest of the values at which the network trains."""
    good = [value for value, yes in zip(values, trained, strict=True) if yes]
    return good[0], good[-1]


def draw(tables, file):
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (name, table) in zip(axes, tables.items(), strict=True):
        image = ax.imshow(table, origin="lower", aspect="auto", cmap="cividis", vmin=0, vmax=1)
        for (i, j), value in np.ndenumerate(table):
            ax.text(j, i, f"{value:.0%}", ha="center", va="center", color="k" if value > 0.5 else "w")
        ax.set(title=name, xlabel="learning rate of SGD")
        ax.set_xticks(range(len(LEARNING_RATES)), [fraction(lr) for lr in LEARNING_RATES])
    axes[0].set_yticks(range(len(SCALES)), [fraction(scale) for scale in SCALES])
    axes[0].set_ylabel("scale of the initial weights, relative to He's")
    figure.colorbar(image, ax=axes, format=PercentFormatter(1), label="test accuracy")
    figure.savefig(file, dpi=120)


def fraction(value):
    return f"{value:g}" if value >= 1 else f"1/{1 / value:g}"


def main(file):
    tables = {}
    for batch_norm, name in ((False, "without BatchNorm"), (True, "with BatchNorm")):
        tables[name] = survey(batch_norm)
        trained = tables[name] >= TRAINED
        sizes = ", ".join(f"{hidden_rms(batch_norm, scale):.2g}" for scale in (0.5, 1, 2))
        print(f"{name}: the last hidden layer's RMS at 1/2, 1 and 2 times He's scale is {sizes}")
        print(f"  test accuracy of at least {TRAINED:.0%} in {trained.sum()} of {trained.size} cases:")
        for what, values, axis in (("learning rates", LEARNING_RATES, 0), ("scales", SCALES, 1)):
            smallest, largest = trained_range(values, trained.any(axis=axis))
            print(f"  {what} from {fraction(smallest)} to {fraction(largest)}")
    draw(tables, file)
    print(f"plot: {file}")


if __name__ == "__main__":
    main(picture_argument(__doc__, "batch_norm.png"))
