"""Train a network to read handwritten digits: every optimizer of fastopt, then a deep network with BatchNorm.

    pip install '.[demo]' && python examples/digits.py

The data are the 1,797 scans of 8 x 8 pixels inside scikit-learn: nothing is downloaded. The network is a
list of layers (``network.py``), and each update of its parameters is one call, ``opt.step(grads)``; the rate
falls to 0 along a cosine. The script prints two tables and draws both:

- each optimizer on a small network: the loss from epoch to epoch;
- SGD on a deep network, with and without BatchNorm: what it reads in the end, by the rate at the start.

It exits with 1 if an optimizer reads less than 97 % of the test digits, or if at a rate of 2 the deep network
reads less than that with BatchNorm, or as many as half without.

The test digits had no say in the rates. Each optimizer's is the one, of rates a factor of two apart, that
reads most in the mean of six seeds under ``--validate``, which holds out a quarter of the training digits
instead; and so it was seen that 2 is too much without BatchNorm.
"""

import argparse
import sys
import time
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastopt
from network import accuracy, learnt, loss_and_grads, make_network

GOAL = 0.97
SMALL = {
    "layers": 1,
    "hidden": 100,
    "epochs": 20,
    "batch_size": 32,
    "batch_norm": False,
    "dropout": 0.0,
}
OPTIMIZERS = {
    "SGD": {"lr": 0.8},
    "Momentum": {"lr": 0.08, "clip_norm": 1.0},
    "Nesterov": {"lr": 0.08},
    "AdaGrad": {"lr": 0.05},
    "RMSprop": {"lr": 0.016},
    "Adam": {"lr": 0.008},
    "AdamW": {"lr": 0.004, "weight_decay": 0.1},
}
DEEP = {"layers": 8, "hidden": 64, "epochs": 10, "batch_size": 64, "dropout": 0.0}
RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)  # of SGD, for the deep network
LARGE_RATE, UNTRAINED = 2.0, 0.5  # where it must read GOAL with BatchNorm, and less than this without

# -- Data: images x (N, 64), standardised, and labels y (N, 10), one-hot; float32 ----------------


def load_data(xp, validate=False):
    """``(x, y)`` to train on and ``(x, y)`` held out, arrays of ``xp``; the same split in every run.

    Held out are the test digits or, to choose settings by, digits of the training part.
    """
    images, labels = load_digits(return_X_y=True)
    split = partial(train_test_split, test_size=0.25, random_state=0)
    x, x_out, y, y_out = split(images, labels, stratify=labels)
    if validate:
        x, x_out, y, y_out = split(x, y, stratify=y)
    x, y = with_shifts(x), np.tile(y, 5)
    standardizer = fastopt.data.Standardizer().fit(x)
    return [
        [xp.asarray(array, dtype=np.float32) for array in (standardizer.transform(a), np.eye(10)[b])]
        for a, b in ((x, y), (x_out, y_out))
    ]


def with_shifts(images):
    """Images (N, 64), then all of them moved by one pixel down, up, right and left: (5 N, 64)."""
    padded = np.pad(images.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    corners = (1, 1), (0, 1), (2, 1), (1, 0), (1, 2)
    return np.concatenate([padded[:, i : i + 8, j : j + 8] for i, j in corners]).reshape(-1, 64)


# -- Training ------------------------------------------------------------------------------------


class Run(NamedTuple):
    """What one optimizer did."""

    losses: list[float]  # epoch by epoch, the mean over its batches
    accuracy: float  # on what was held out, at the end
    steps: int
    seconds: float  # inside opt.step; on a GPU, to hand the work over


def train(name, settings, xp, data, args, epoch_done=lambda: None):
    """Train a fresh network. The same seed gives each optimizer the same start and the same batches."""
    (x, y), held_out = data
    network = make_network(xp, x.shape[1], y.shape[1], args)
    params = learnt(network)
    opt = getattr(fastopt, name)(params, **settings)
    # A last, short batch is left out: BatchNorm learns nothing from one image.
    batches = fastopt.data.minibatches(x, y, batch_size=args.batch_size, seed=args.seed, drop_last=True)
    rate = fastopt.schedules.Cosine(opt.lr, steps=args.epochs * len(batches))
    losses, seconds = [], 0.0
    for _ in range(args.epochs):
        total = 0.0
        for batch in batches:
            # Nesterov takes the gradient where momentum is about to carry the parameters.
            point = opt.lookahead() if name == "Nesterov" else params
            loss, grads = loss_and_grads(network, point, *batch)
            opt.lr = rate(opt.step_count)
            before = time.perf_counter()
            opt.step(grads)
            seconds += time.perf_counter() - before
            total += loss
        losses.append(float(total) / len(batches))
        epoch_done()
    return Run(losses, accuracy(network, params, *held_out), opt.step_count, seconds)


def train_deep(xp, data, args, epoch_done=lambda: None):
    """The deep network's accuracies, one for each of RATES, without (False) and with (True) BatchNorm."""

    def read(lr, batch_norm):
        deep = {**vars(args), **DEEP, "batch_norm": batch_norm}
        return train("SGD", {"lr": lr}, xp, data, argparse.Namespace(**deep), epoch_done).accuracy

    with np.errstate(over="ignore", invalid="ignore"):  # where the rate was too high
        return {norm: [read(lr, norm) for lr in RATES] for norm in (False, True)}


# -- Report --------------------------------------------------------------------------------------

DEEP_LINES = {False: ("without BatchNorm", "s--C7"), True: ("with BatchNorm", "o-C9")}


def new_table(*headings):
    return Table(*headings, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def right(*headings):
    return [Column(heading, justify="right") for heading in headings]


def result_table(runs, held_out):
    measured = "epochs", "training loss", f"{held_out} accuracy", "in opt.step", "a step"
    table = new_table("optimizer", Column("settings", no_wrap=True), *right(*measured))
    for name, run in runs.items():
        settings = "\n".join(f"{key} {value:g}" for key, value in OPTIMIZERS[name].items())
        quality = f"{run.losses[-1]:.6f}", f"{run.accuracy:.2%}"
        timing = f"{1e3 * run.seconds:.1f} ms", f"{1e6 * run.seconds / run.steps:.1f} µs"
        table.add_row(name, settings, str(len(run.losses)), *quality, *timing)
    return table


def deep_table(deep):
    table = new_table("deep, SGD", *right(*(f"lr {lr:g}" for lr in RATES)))
    for norm, accuracies in deep.items():
        table.add_row(DEEP_LINES[norm][0], *(f"{a:.1%}" for a in accuracies))
    return table


def draw(runs, deep, held_out, path):
    figure = Figure(figsize=(13 if deep else 8, 5.5), layout="constrained")
    axes = figure.subplots(1, 2 if deep else 1, squeeze=False)[0]
    draw_losses(axes[0], runs, held_out)
    if deep:
        draw_deep(axes[1], deep, held_out)
    figure.savefig(path, dpi=120)


def draw_losses(ax, runs, held_out):
    for name, run in sorted(runs.items(), key=lambda item: -item[1].losses[-1]):  # as the curves end
        i = list(OPTIMIZERS).index(name)
        line = {"color": f"C{i}", "linestyle": "-" if i < 3 else "--", "marker": "."}
        epochs = range(1, len(run.losses) + 1)
        ax.plot(epochs, run.losses, **line, label=f"{name}, {run.accuracy:.1%}")
    ax.set_title("Every optimizer (dashed: a rate for each parameter)")
    ax.set(xlabel="epoch", ylabel="training loss (mean cross-entropy over the epoch)", yscale="log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    ax.legend(title=f"optimizer, {held_out} accuracy", loc="lower left")


def draw_deep(ax, deep, held_out):
    for norm, accuracies in deep.items():
        label, line = DEEP_LINES[norm]
        ax.plot(RATES, accuracies, line, label=label)
    ax.set_title(f"A deep network: {DEEP['layers']} hidden layers of {DEEP['hidden']}, SGD")
    ax.set(xlabel="learning rate", ylabel=f"{held_out} accuracy after {DEEP['epochs']} epochs")
    ax.set_xscale("log", base=2)
    ax.set_xticks(RATES, [f"{lr:g}" for lr in RATES])
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.grid(alpha=0.3)
    ax.legend(loc="lower left")


# -- Command line --------------------------------------------------------------------------------


def whole(text):
    if (value := int(text)) < 0:
        raise ValueError
    return value


def count(text):
    if (value := whole(text)) == 0:
        raise ValueError
    return value


def probability(text):
    if not 0 <= (value := float(text)) < 1:
        raise ValueError
    return value


def read_args(argv):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--optimizer", action="append", choices=OPTIMIZERS, help="may be repeated; default: all")
    add("--no-deep", action="store_true", help="leave the deep network out")
    add("--validate", action="store_true", help="hold out training digits in place of the test digits")
    add("--seed", type=whole, default=0, help="of weights, batches and dropout")
    add("--picture", metavar="FILE", default="digits.png", help="where to draw the curves")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="NumPy, or CuPy on a GPU")
    add("--no-progress", action="store_true", help="no bar; there is none without a terminal either")
    add = parser.add_argument_group("the small network").add_argument
    add("--epochs", type=count)
    add("--batch-size", type=count)
    add("--layers", type=count, help="number of hidden layers")
    add("--hidden", type=count, help="units in each of them")
    add("--batch-norm", action="store_true", help="normalise each of them")
    add("--dropout", type=probability, metavar="P", help="drop their units with this probability")
    parser.set_defaults(**SMALL)
    return parser.parse_args(argv)


def array_module(device):
    """The library that makes the arrays. Everything else follows from their type."""
    if device == "cpu":
        return np
    try:
        import cupy
    except ImportError:
        sys.exit("--device cuda needs CuPy: pip install cupy-cuda13x (or cupy-cuda12x)")
    if not cupy.is_available():
        sys.exit("--device cuda needs a CUDA device, and CuPy finds none")
    return cupy


def complaints(args, runs, deep):
    """What missed its goal. Nothing is asked of other settings than ours, nor with the validation digits."""
    if args.validate:
        return []
    tuned = SMALL.items() <= vars(args).items()
    low = [name for name, run in runs.items() if tuned and run.accuracy < GOAL]
    large = {norm: accuracies[RATES.index(LARGE_RATE)] for norm, accuracies in deep.items()}
    if large and large[True] < GOAL:
        low.append(f"deep, lr {LARGE_RATE:g} with BatchNorm")
    found = [f"below {GOAL:.0%} on the test set: {', '.join(low)}"] if low else []
    if large and large[False] >= UNTRAINED:
        found.append(f"deep, lr {LARGE_RATE:g} trains without BatchNorm too: {large[False]:.1%}")
    return found


def main(argv=None):
    args, console, runs, deep = read_args(argv), Console(), {}, {}
    xp = array_module(args.device)
    data = load_data(xp, args.validate)
    silent = args.no_progress or not console.is_terminal
    with Progress(console=console, transient=True, disable=silent) as progress:

        def bar(name, epochs):
            return partial(progress.advance, progress.add_task(f"{name:9}", total=epochs))

        for name in args.optimizer or OPTIMIZERS:
            runs[name] = train(name, OPTIMIZERS[name], xp, data, args, bar(name, args.epochs))
        if not args.no_deep:
            deep = train_deep(xp, data, args, bar("deep", 2 * len(RATES) * DEEP["epochs"]))
    held_out = "validation" if args.validate else "test"
    draw(runs, deep, held_out, args.picture)
    console.print(result_table(runs, held_out))
    if deep:
        console.print(deep_table(deep))
    console.print(f"Curves: {args.picture}")
    if found := complaints(args, runs, deep):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
