"""Every optimizer on the digits, and a deep network with and without BatchNorm: two tables and a plot of both.

``digits.py`` runs this if no optimizer is named. The first part trains a small network with each optimizer in
turn and compares the loss from epoch to epoch. The second part trains a deep network with SGD, with and
without BatchNorm, and compares the final accuracy by initial learning rate.

The test digits were not used to choose the learning rates of ``settings.py``. They were chosen with
``--validate``, which holds out a quarter of the training digits instead. In the mean of six seeds, no
learning rate two or four times as high or low is more than half a percent more accurate on these. The same
runs showed that a learning rate of 2 is too high without BatchNorm.
"""

from dataclasses import replace
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from rich import box
from rich.table import Column, Table

from settings import OPTIMIZERS, Settings
from training import Training

GOAL = 0.97
DEEP = {"optimizer": "SGD", "layers": 8, "hidden": 64, "epochs": 10, "batch_size": 64}
LEARNING_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)  # of SGD, for the deep network
# At this learning rate the deep network must reach GOAL with BatchNorm, and stay below UNTRAINED without.
LARGE_LR, UNTRAINED = 2.0, 0.5
DEEP_LINES = {False: ("without BatchNorm", "s--C7"), True: ("with BatchNorm", "o-C9")}


def compare(xp, data, settings, picture, console, progress):
    """Train, print and draw. Returns a sentence for each missed goal."""

    def bar(name, epochs):
        return partial(progress.advance, progress.add_task(f"{name:9}", total=epochs))

    part = "validation" if settings.validate else "test"
    runs = {}
    with progress:
        for name in OPTIMIZERS:
            runs[name] = Training(xp, data, replace(settings, optimizer=name))
            runs[name].run(epoch_done=bar(name, settings.epochs))
        epoch_done = bar("deep", len(DEEP_LINES) * len(LEARNING_RATES) * DEEP["epochs"])
        deep = train_deep(xp, data, settings.seed, part, epoch_done)
    draw(runs, deep, part, picture)
    console.print(result_table(runs, part))
    console.print(deep_table(deep))
    return failed_goals(settings, {name: run.accuracy("test") for name, run in runs.items()}, deep)


def train_deep(xp, data, seed, part, epoch_done=lambda: None):
    """Return the deep network's accuracies, one for each of LEARNING_RATES, without (False) and with (True)
    BatchNorm."""

    def accuracy(lr, batch_norm):
        run = Training(xp, data, Settings(lr=lr, batch_norm=batch_norm, seed=seed, **DEEP))
        run.run(epoch_done=epoch_done)
        return run.accuracy(part)

    with np.errstate(over="ignore", invalid="ignore"):  # if the learning rate is too high
        return {norm: [accuracy(lr, norm) for lr in LEARNING_RATES] for norm in DEEP_LINES}


def failed_goals(settings, accuracies, deep):
    """Return a sentence for each missed goal.

    The optimizers have a goal with the default settings only, and nothing has one on the validation digits.
    """
    if settings.validate:
        return []
    tuned = settings == replace(Settings(), seed=settings.seed, device=settings.device)
    low = [name for name, accuracy in accuracies.items() if tuned and accuracy < GOAL]
    large = {norm: row[LEARNING_RATES.index(LARGE_LR)] for norm, row in deep.items()}
    if large[True] < GOAL:
        low.append(f"deep, lr {LARGE_LR:g} with BatchNorm")
    failed = [f"below {GOAL:.0%} on the test set: {', '.join(low)}"] if low else []
    if large[False] >= UNTRAINED:
        failed.append(f"deep, lr {LARGE_LR:g} also trains without BatchNorm: {large[False]:.1%}")
    return failed


# -- Tables --------------------------------------------------------------------------------------


def new_table(*headings):
    return Table(*headings, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def right(*headings):
    return [Column(heading, justify="right") for heading in headings]


def result_table(runs, part):
    measured = "epochs", "training loss", f"{part} accuracy", "in opt.step", "per step"
    table = new_table("optimizer", Column("settings", no_wrap=True), *right(*measured))
    for name, run in runs.items():
        hyper = "\n".join(f"{key} {value}" for key, value in run.settings.hyper.items())
        losses = run.history["training loss"]
        quality = f"{losses[-1]:.6f}", f"{run.accuracy(part):.2%}"
        timing = f"{1e3 * run.seconds:.1f} ms", f"{1e6 * run.seconds / run.opt.step_count:.1f} µs"
        table.add_row(name, hyper, str(len(losses)), *quality, *timing)
    return table


def deep_table(deep):
    table = new_table("deep, SGD", *right(*(f"lr {lr:g}" for lr in LEARNING_RATES)))
    for norm, accuracies in deep.items():
        table.add_row(DEEP_LINES[norm][0], *(f"{a:.1%}" for a in accuracies))
    return table


# -- Picture -------------------------------------------------------------------------------------


def draw(runs, deep, part, path):
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_losses(left, runs, part)
    draw_deep(right, deep, part)
    figure.savefig(path, dpi=120)


def draw_losses(ax, runs, part):
    by_end = sorted(runs.items(), key=lambda item: -item[1].history["training loss"][-1])
    for name, run in by_end:  # the legend has the order in which the curves end
        i, losses = list(OPTIMIZERS).index(name), run.history["training loss"]
        line = {"color": f"C{i}", "linestyle": "-" if i < 3 else "--", "marker": "."}
        ax.plot(range(1, len(losses) + 1), losses, **line, label=f"{name}, {run.accuracy(part):.1%}")
    ax.set_title("Every optimizer (dashed: per-parameter learning rates)")
    ax.set(xlabel="epoch", ylabel="training loss (mean cross-entropy over the epoch)", yscale="log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    ax.legend(title=f"optimizer, {part} accuracy", loc="lower left")


def draw_deep(ax, deep, part):
    for norm, accuracies in deep.items():
        label, line = DEEP_LINES[norm]
        ax.plot(LEARNING_RATES, accuracies, line, label=label)
    ax.set_title(f"A deep network: {DEEP['layers']} hidden layers of {DEEP['hidden']}, SGD")
    ax.set(xlabel="learning rate", ylabel=f"{part} accuracy after {DEEP['epochs']} epochs")
    ax.set_xscale("log", base=2)
    ax.set_xticks(LEARNING_RATES, [f"{lr:g}" for lr in LEARNING_RATES])
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.grid(alpha=0.3)
    ax.legend(loc="lower left")
