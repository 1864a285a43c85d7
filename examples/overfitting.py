"""Early stopping and dropout close the gap between training and validation loss.

    pip install '.[demo]' && python examples/overfitting.py

400 handwritten digits, a fifth of whose labels were drawn anew, as careless labelling would. The network learns
the wrong ones by heart, and the validation loss, after a few good epochs, climbs to about twice its lowest.
Early stopping goes back to the parameters of the lowest. Dropout takes another half of the hidden units away at
each step, so that learning by heart is harder: the good epochs last longer, and in the end the gap is no more
than about half as wide. With either the network reads more of the test digits, whose labels are right, than
with neither.
"""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastopt
from command import picture_argument
from network import accuracy, learnt, loss, loss_and_grads, make_network

SAMPLES = 400  # to train on
ANEW = 0.2  # the share of labels drawn anew, one in ten of which comes out right
NETWORK = {"layers": 2, "hidden": 100, "batch_norm": False}
EPOCHS, PATIENCE, BATCH, LR = 60, 10, 20, 0.003
DROPOUTS = {"without dropout": 0.0, "with dropout": 0.5}


def data(seed):
    """Three times ``x`` (N, 64) and labels ``y`` (N, 10), one-hot: to train, to validate and to test with."""
    images, labels = load_digits(return_X_y=True)
    x, y = (images / 16).astype("float32"), np.eye(10, dtype="float32")
    rng = np.random.default_rng(seed)
    spoiled = np.where(rng.random(len(labels)) < ANEW, rng.integers(0, 10, len(labels)), labels)
    train, rest = train_test_split(np.arange(len(labels)), train_size=SAMPLES, random_state=seed)
    held_out, test = np.split(rest, [500])
    return (
        (x[train], y[spoiled[train]]),
        (x[held_out], y[spoiled[held_out]]),
        (x[test], y[labels[test]]),
    )


class State(NamedTuple):
    """What is known of a network after an epoch. Neither loss has units dropped."""

    epoch: int
    training: float  # mean cross-entropy
    validation: float
    read: float  # the share of test digits

    @property
    def gap(self):
        return self.validation - self.training


def train(dropout, seed=0):
    """The state after every epoch, and the one that early stopping goes back to."""
    training, validation, test = data(seed)
    network = make_network(np, 64, 10, SimpleNamespace(**NETWORK, dropout=dropout, seed=seed))
    params = learnt(network)
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
        if not stopper.stopped:  # the run goes on, to show what would have been
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
        said = [name]
        for place, state, line in (("early stopping", kept, "ko-"), ("at the end", states[-1], "ks:")):
            label = f"gap, {place} (epoch {state.epoch})"
            ax.plot([state.epoch] * 2, state[1:3], line, markersize=5, label=label)
            said.append(f"{place}: gap {state.gap:.2f}, {state.read:.1%} of the test digits read")
        ax.set_title("\n".join(said), fontsize=10)
        ax.set(xlabel="epoch", xlim=(0, EPOCHS + 2))
        ax.legend(frameon=False, loc="upper left")
        ax.label_outer()
    figure.axes[0].set(ylabel="loss (mean cross-entropy, nats)", ylim=(0, None))
    figure.savefig(file, dpi=120)


def main(file):
    runs = {name: train(dropout) for name, dropout in DROPOUTS.items()}
    for name, (states, kept) in runs.items():
        print(name)
        for place, state in (("kept by early stopping", kept), ("at the end", states[-1])):
            print(
                f"  {place:22} epoch {state.epoch:2d}  loss: training {state.training:.3f}, "
                f"validation {state.validation:.3f}, gap {state.gap:.3f}  reads {state.read:.1%}"
            )
    draw(runs, file)
    print(f"the losses: {file}")


if __name__ == "__main__":
    main(picture_argument(__doc__, "overfitting.png"))
