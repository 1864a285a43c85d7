"""Train a network to read handwritten digits.

    pip install '.[demo]' && python examples/digits.py

compares all optimizers of fastopt, then a deep network with and without BatchNorm (``comparison.py``); it exits
with 1 if an optimizer reads less than 97 % of the test digits, or if at a rate of 2 the deep network reads less
than that with BatchNorm, or as many as half without.

    python examples/digits.py --optimizer Adam --dropout 0.2 --early-stopping 5 --checkpoint run.npz

is one run with options (``settings.py``). With ``--checkpoint`` its whole state is written after every epoch
and, in the middle of one, upon Ctrl-C or SIGTERM, which end it with 130 or 143; a second Ctrl-C does not wait.
The same command then goes on and, on the same machine, ends in the same bits as a run that nobody stopped. A
wrong option, a checkpoint of another run and a device that is not there exit with 2.

The data are the 1,797 scans of 8 x 8 pixels inside scikit-learn: nothing is downloaded. The network is a list
of layers (``network.py``), and each update of its parameters is one call, ``opt.step(grads)``
(``training.py``).
"""

import argparse
import os
import signal
import sys
from contextlib import contextmanager
from dataclasses import fields

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress

import fastopt
from command import add_picture, first_line
from comparison import compare, new_table, right
from settings import Settings, added_to
from training import Training, load_data

# -- Command line --------------------------------------------------------------------------------


def read_args(argv):
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    add_picture(parser, "--picture", "digits.png")
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="of one run: go on from it, and keep it up to date"
    )
    parser.add_argument(
        "--no-progress", action="store_true", help="no bar; there is none without a terminal"
    )
    added_to(parser).set_defaults(optimizer=None)
    args = parser.parse_args(argv)
    if args.checkpoint and not args.optimizer:
        parser.error("--checkpoint is of one run: name its --optimizer")
    return args


def refuse(sentence):
    print(f"digits.py: {sentence}", file=sys.stderr)
    sys.exit(2)


def array_module(device):
    """The library that makes the arrays. Everything else follows from their type."""
    if device == "cpu":
        return np
    try:
        import cupy
    except ImportError:
        refuse("--device cuda needs CuPy: pip install cupy-cuda13x (or cupy-cuda12x)")
    if not cupy.is_available():
        refuse("--device cuda needs a CUDA device, and CuPy finds none")
    try:
        x = cupy.zeros((2, 1), dtype=np.float32)
        fastopt.SGD([x])
        fastopt.Dropout(0.5, generator=0)(fastopt.BatchNorm(1, like=x[0])(x))
    except (ImportError, TypeError, ValueError, RuntimeError) as reason:
        refuse(f"--device cuda needs a fastopt that takes CuPy's arrays: {reason}")
    return cupy


# -- One run -------------------------------------------------------------------------------------


@contextmanager
def interruptions(on):
    """A list in which Ctrl-C and SIGTERM leave their numbers, if ``on``; the second one acts as ever."""
    caught, before = [], {}

    def catch(number, _):
        caught.append(number)
        for other, handler in before.items():
            signal.signal(other, handler)

    for number in (signal.SIGINT, signal.SIGTERM) if on else ():
        before[number] = signal.signal(number, catch)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_one(training, args, console, progress):
    """Train once, print, draw; returns the exit code."""
    file = args.checkpoint
    if file and os.path.exists(file):
        try:
            training.load_state_dict(fastopt.checkpoint.load(file))
        except (OSError, TypeError, ValueError) as reason:
            refuse(f"cannot go on from {file}: {reason}")
        console.print(f"Goes on from {file}, {place(training)}.")
    caught = train(training, file, progress)
    if caught:
        console.print(f"Stopped {place(training)}; the same command goes on from there.")
        return 128 + caught[0]
    report(training, console)
    draw(training.history, args.picture)
    console.print(f"Curves: {args.picture}")
    return 0


def train(training, file, progress):
    """To the end or, if a signal comes, to the end of its step. Returns the signals."""

    def save():
        if file:
            try:
                fastopt.checkpoint.save(file, training.state_dict())
            except OSError as reason:
                refuse(f"--checkpoint cannot be written: {reason}")

    def epoch_done():
        progress.advance(bar)
        save()

    bar = progress.add_task(
        "training", total=training.settings.epochs, completed=training.batches.epoch
    )
    with progress, interruptions(bool(file)) as caught:
        save()  # to tell now, not after an epoch, that it cannot be written
        if training.run(lambda: bool(caught), epoch_done):
            return []
        save()
        return caught


def place(training):
    done, whole = training.batches.position // training.batches.batch_size, len(training.batches)
    return f"after {training.batches.epoch} epochs and {done} of {whole} steps"


def report(training, console):
    settings, history = training.settings, training.history
    part = "validation" if settings.validate else "test"
    weights = [array for name, array in training.params.items() if name[0] == "w"]
    zeros = sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights)
    shown = {name: f"{losses[-1]:.6f}" for name, losses in history.items() if losses}
    shown |= {f"{part} accuracy": f"{training.accuracy(part):.2%}", "weights at 0": f"{zeros:.1%}"}
    table = new_table("optimizer", *right("epochs", *shown))
    table.add_row(settings.optimizer, str(training.batches.epoch), *shown.values())
    console.print(table)
    if training.stopper is not None and training.stopper.best_update:
        console.print(f"The parameters are those of epoch {training.stopper.best_update}.")


def draw(history, path):
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    ax = figure.subplots()
    for name, losses in history.items():
        if losses:
            ax.plot(range(1, len(losses) + 1), losses, ".-", label=name)
    ax.set(xlabel="epoch", ylabel="mean cross-entropy", yscale="log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    ax.legend()
    figure.savefig(path, dpi=120)


def main(argv=None):
    args, console = read_args(argv), Console()
    progress = Progress(
        console=console, transient=True, disable=args.no_progress or not console.is_terminal
    )
    told = {f.name: getattr(args, f.name) for f in fields(Settings)}
    settings = Settings(**{**told, "optimizer": args.optimizer or Settings.optimizer})
    xp = array_module(args.device)
    data = load_data(xp, settings)
    try:
        training = Training(xp, data, settings)
    except ValueError as reason:  # which fastopt has for options that do not go together
        refuse(reason)
    if args.optimizer:
        sys.exit(run_one(training, args, console, progress))
    found = compare(xp, data, settings, args.picture, console, progress)
    console.print(f"Curves: {args.picture}")
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
