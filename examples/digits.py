"""Train a small network to read handwritten digits, with every optimizer of fastopt in turn.

    pip install '.[demo]' && python examples/digits.py

The data are the 1,797 scans of 8 x 8 pixels inside scikit-learn: nothing is downloaded. The network is
plain NumPy, forward and backward written out, and each update of its parameters is one call,
``opt.step(grads)``. The script prints a table and draws the loss curves. It exits with 1 if an optimizer,
with the settings below, reads less than 97 % of the test digits.
"""

import argparse
import math
import sys
import time
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastopt

GOAL = 0.97
EPOCHS, BATCH_SIZE, HIDDEN = 20, 32, 100
OPTIMIZERS = {
    "SGD": {"lr": 0.2},
    "Momentum": {"lr": 0.08, "clip_norm": 1.0},  # without the limit, the rate is too high
    "Nesterov": {"lr": 0.03},
    "AdaGrad": {"lr": 0.05},
    "RMSprop": {"lr": 0.002},
    "Adam": {"lr": 0.002},
    "AdamW": {"lr": 0.002, "weight_decay": 0.1},
}

# -- Data: images x (N, 64), standardised, and labels y (N, 10), one-hot; float32 ----------------


def load_data(xp):
    """``(x, y)`` to train on and ``(x, y)`` to test on, arrays of ``xp``; the same split in every run."""
    images, labels = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        images, np.eye(10)[labels], test_size=0.25, stratify=labels, random_state=0
    )
    x_train, y_train = with_shifts(x_train), np.tile(y_train, (5, 1))
    mean, std = x_train.mean(axis=0), x_train.std(axis=0)
    std[std == 0] = 1  # a pixel that never changes becomes 0
    sets = ((x_train - mean) / std, y_train), ((x_test - mean) / std, y_test)
    return [[xp.asarray(array, dtype=np.float32) for array in part] for part in sets]


def with_shifts(images):
    """Images (N, 64), then all of them moved by one pixel down, up, right and left: (5 N, 64)."""
    padded = np.pad(images.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    corners = (1, 1), (0, 1), (2, 1), (1, 0), (1, 2)
    return np.concatenate([padded[:, i : i + 8, j : j + 8] for i, j in corners]).reshape(-1, 64)


# -- Network: 64 pixels -> H hidden units with ReLU -> 10 classes with softmax -------------------


def init_params(xp, rng, sizes):
    """He's initialisation: weights (m, n) are normal with variance 2 / m, biases (n,) are 0."""
    params = {}
    for i, (m, n) in enumerate(pairwise(sizes), start=1):
        params[f"w{i}"] = xp.asarray(rng.standard_normal((m, n), dtype=np.float32) * math.sqrt(2 / m))
        params[f"b{i}"] = xp.zeros(n, dtype=np.float32)
    return params


def forward(params, x):
    """Images (B, 64) -> hidden activations (B, H), logits (B, 10)."""
    hidden = np.maximum(x @ params["w1"] + params["b1"], 0)
    return hidden, hidden @ params["w2"] + params["b2"]


def loss_and_grads(params, x, y):
    """The batch's mean cross-entropy, and its gradients under the names and in the shapes of ``params``."""
    hidden, logits = forward(params, x)
    logits = logits - logits.max(axis=1, keepdims=True)  # so that exp cannot overflow
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    d_logits = (np.exp(log_p) - y) / len(x)  # (B, 10)
    d_hidden = d_logits @ params["w2"].T * (hidden > 0)  # (B, H)
    w1, b1 = x.T @ d_hidden, d_hidden.sum(axis=0)
    w2, b2 = hidden.T @ d_logits, d_logits.sum(axis=0)
    return -(y * log_p).sum() / len(x), {"w1": w1, "b1": b1, "w2": w2, "b2": b2}


def accuracy(params, x, y):
    """The share of images whose largest logit is the right one."""
    return float((forward(params, x)[1].argmax(axis=1) == y.argmax(axis=1)).mean())


# -- Training ------------------------------------------------------------------------------------


class Run(NamedTuple):
    """What one optimizer did."""

    losses: list[float]  # epoch by epoch, the mean over the training set
    accuracy: float  # on the test set, at the end
    steps: int
    seconds: float  # inside opt.step; on a GPU, to hand the work over


def train(name, xp, data, args, epoch_done=lambda: None):
    """Train a fresh network. The same seed gives each optimizer the same start and the same batches."""
    (x, y), test = data
    rng = np.random.default_rng(args.seed)
    params = init_params(xp, rng, (64, args.hidden, 10))
    opt = getattr(fastopt, name)(params, **OPTIMIZERS[name])
    losses, seconds = [], 0.0
    for _ in range(args.epochs):
        order = xp.asarray(rng.permutation(len(x)))
        total = 0.0
        for start in range(0, len(x), args.batch_size):
            batch = order[start : start + args.batch_size]
            # Nesterov takes the gradient where momentum is about to carry the parameters.
            point = opt.lookahead() if name == "Nesterov" else params
            loss, grads = loss_and_grads(point, x[batch], y[batch])
            before = time.perf_counter()
            opt.step(grads)
            seconds += time.perf_counter() - before
            total += loss * len(batch)
        losses.append(float(total) / len(x))
        epoch_done()
    return Run(losses, accuracy(params, *test), opt.step_count, seconds)


# -- Report --------------------------------------------------------------------------------------


def result_table(runs):
    table = Table("optimizer", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("settings", no_wrap=True)
    for heading in ("epochs", "training loss", "test accuracy", "in opt.step", "a step"):
        table.add_column(heading, justify="right")
    for name, run in runs.items():
        settings = "\n".join(f"{key} {value:g}" for key, value in OPTIMIZERS[name].items())
        quality = f"{run.losses[-1]:.6f}", f"{run.accuracy:.2%}"
        timing = f"{1e3 * run.seconds:.1f} ms", f"{1e6 * run.seconds / run.steps:.1f} µs"
        table.add_row(name, settings, str(len(run.losses)), *quality, *timing)
    return table


def draw_losses(runs, path):
    figure = Figure(figsize=(9, 5), layout="constrained")
    ax = figure.subplots()
    for name, run in sorted(runs.items(), key=lambda item: -item[1].losses[-1]):  # as the curves end
        i = list(OPTIMIZERS).index(name)
        line = {"color": f"C{i}", "linestyle": "-" if i < 3 else "--", "marker": "."}
        epochs = range(1, len(run.losses) + 1)
        ax.plot(epochs, run.losses, **line, label=f"{name}, {run.accuracy:.1%}")
    ax.set_title("Learning to read handwritten digits (dashed: a rate for each parameter)")
    ax.set(xlabel="epoch", ylabel="training loss (mean cross-entropy over the epoch)", yscale="log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    ax.legend(title="optimizer, test accuracy", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=150)


# -- Command line --------------------------------------------------------------------------------


def count(text):
    if (value := int(text)) < 1:
        raise ValueError
    return value


def read_args(argv):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--optimizer", action="append", choices=OPTIMIZERS, help="may be repeated; default: all")
    add("--epochs", type=count, default=EPOCHS)
    add("--batch-size", type=count, default=BATCH_SIZE)
    add("--hidden", type=count, default=HIDDEN, help="number of hidden units")
    add("--seed", type=int, default=0, help="of the first weights and the batches")
    add("--picture", metavar="FILE", default="digits.png", help="where to draw the loss curves")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="NumPy, or CuPy on a GPU")
    add("--no-progress", action="store_true", help="no bar; there is none without a terminal either")
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


def main(argv=None):
    args, console, runs = read_args(argv), Console(), {}
    xp = array_module(args.device)
    data = load_data(xp)
    silent = args.no_progress or not console.is_terminal
    with Progress(console=console, transient=True, disable=silent) as progress:
        for name in args.optimizer or OPTIMIZERS:
            bar = progress.add_task(f"{name:9}", total=args.epochs)
            runs[name] = train(name, xp, data, args, lambda bar=bar: progress.advance(bar))
    draw_losses(runs, args.picture)
    console.print(result_table(runs), f"Loss curves: {args.picture}")

    tuned = (args.epochs, args.batch_size, args.hidden) == (EPOCHS, BATCH_SIZE, HIDDEN)
    low = [name for name, run in runs.items() if run.accuracy < GOAL]
    if tuned and low:
        sys.exit(f"below {GOAL:.0%} on the test set: {', '.join(low)}")


if __name__ == "__main__":
    main()
