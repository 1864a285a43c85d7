"""Early stopping and dropout narrow the gap between training and validation loss.

    pip install '.[demo]' && python examples/overfitting.py

The data are 400 handwritten digits. A fifth of the labels were replaced by random ones, as careless labeling
would. The network memorizes the wrong labels, and the validation loss, after a few good epochs, rises to
about twice its minimum. Early stopping restores the parameters from that minimum. Dropout removes a different
random half of the hidden units at each step, which makes memorizing harder: the validation loss falls for
more epochs, and at the end the gap is no more than about half as wide. With either method the accuracy on the
test digits, whose labels are correct, is higher than with neither.
"""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastopt
from command import picture_argument
from network import accuracy, learnable_params, loss, loss_and_grads, make_network

SAMPLES = 400  # for training
NOISE_SHARE = 0.2  # of the labels, which are replaced by random ones (a tenth of these is correct)
NETWORK = {"layers": 2, "hidden": 100, "batch_norm": False}
EPOCHS, PATIENCE, BATCH, LR = 60, 10, 20, 0.003
DROPOUTS = {"without dropout": 0.0, "with dropout": 0.5}


def data(seed):
    """Return the training, validation and test parts: ``x`` (N, 64) and labels ``y`` (N, 10), one-hot."""
    images, labels = load_digits(return_X_y=True)
    x, y = (images / 16).astype("float32"), np.eye(10, dtype="float32")
    rng = np.random.default_rng(seed)
    noisy = np.where(rng.random(len(labels)) < NOISE_SHARE, rng.integers(0, 10, len(labels)), labels)
    train, rest = train_test_split(np.arange(len(labels)), train_size=SAMPLES, random_state=seed)
    held_out, test = np.split(rest, [500])
    return (
        (x[train], y[noisy[train]]),
        (x[held_out], y[noisy[held_out]]),
        (x[test], y[labels[test]]),
    )


class State(NamedTuple):
    """Losses (mean cross-entropy, without dropout) and test accuracy after an epoch."""

    epoch: int
    training: float
    validation: float
    test_accuracy: float

    @property
    def gap(self):
        return self.validation - self.training


def train(dropout, seed=0):
    """Return the state after every epoch, and the state that early stopping restores."""
    training, validation, test = data(seed)
    network = make_network(np, 64, 10, SimpleNamespace(**NETWORK, dropout=dropout, seed=seed))
    params = learnable_params(network)
    opt, stopper = fastopt.Adam(params, lr=LR), fastopt.EarlyStopping(PATIENCE)
    batches = fastopt.data.minibatches(*training, batch_size=BATCH, seed=seed)
    states = []

    def state(epoch):
        losses = (loss(network, params, *part) for part in (training, validation))
        return State(epoch, *losses, accuracy(network, params, *test))

    for epoch in range(1, EPOCHS + 1):
        for batch in batches:
            opt.step(loss_and_grads(network, params, *batch)[1])
        states.append(state(epoch))
        if not stopper.stopped:  # training continues, to show what early stopping avoids
            stopper.update(states[-1].validation, params)
    stopper.restore(params)
    return states, state(stopper.best_update)


def draw(runs, file):
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    for ax, (name, (states, kept)) in zip(
        figure.subplots(1, 2, sharey=True), runs.items(), strict=True
    ):
        epochs, training, validation, _ = zip(*states, strict=True)
        ax.plot(epochs, training, "--", color="#0072B2", label="training")
        ax.plot(epochs, validation, color="#D55E00", label="validation")
        title = [name]
        for when, state, line in (("early stopping", kept, "ko-"), ("at the end", states[-1], "ks:")):
            label = f"gap, {when} (epoch {state.epoch})"
            ax.plot([state.epoch] * 2, state[1:3], line, markersize=5, label=label)
            title.append(f"{when}: gap {state.gap:.2f}, test accuracy {state.test_accuracy:.1%}")
        ax.set_title("\n".join(title), fontsize=10)
        ax.set(xlabel="epoch", xlim=(0, EPOCHS + 2))
        ax.legend(frameon=False, loc="upper left")
        ax.label_outer()
    figure.axes[0].set(ylabel="loss (mean cross-entropy, nats)", ylim=(0, None))
    figure.savefig(file, dpi=120)


def main(file):
    runs = {name: train(dropout) for name, dropout in DROPOUTS.items()}
    for name, (states, kept) in runs.items():
        print(name)
        for when, state in (("early stopping", kept), ("at the end", states[-1])):
            print(
                f"  {when:14} epoch {state.epoch:2d}  loss: training {state.training:.3f}, "
                f"validation {state.validation:.3f}, gap {state.gap:.3f}  "
                f"test accuracy {state.test_accuracy:.1%}"
            )
    draw(runs, file)
    print(f"plot: {file}")


if __name__ == "__main__":
    main(picture_argument(__doc__, "overfitting.png"))
