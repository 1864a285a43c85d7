"""Train a network to recognize handwritten digits.

    pip install '.[demo]' && python examples/digits.py

compares all optimizers of fastopt, then a deep network with and without BatchNorm (``comparison.py``). The exit
status is 1 if an optimizer's test accuracy is below 97 %, or if, at a learning rate of 2, the deep network's
is below 97 % with BatchNorm or at least 50 % without.

    python examples/digits.py --optimizer Adam --dropout 0.2 --early-stopping 5 --checkpoint run.npz

is a single run with options (``settings.py``). With ``--checkpoint`` the whole state is saved after every
epoch and, in the middle of an epoch, on Ctrl-C or SIGTERM, which end the run with status 130 or 143; a second
Ctrl-C ends it at once. The same command then resumes the run and, on the same machine, gives the same bits as
an uninterrupted run. The exit status is 2 for a wrong option, a checkpoint of another run and a missing
device.

The data are the 1,797 scans of 8 x 8 pixels included in scikit-learn, so nothing is downloaded. The network
is a list of layers (``network.py``), and each update of its parameters is one call, ``opt.step(grads)``
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
from settings import Settings, add_arguments
from training import Training, load_data

# -- Command line --------------------------------------------------------------------------------


def read_args(argv):
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    add_picture(parser, "--picture", "digits.png")
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        type=checkpoint_path,
        help="save a single run's state here, and resume from it",
    )
    parser.add_argument(
        "--no-progress", action="store_true", help="show no progress bar (default: only in a terminal)"
    )
    add_arguments(parser)
    parser.set_defaults(optimizer=None)
    args = parser.parse_args(argv)
    if args.checkpoint and not args.optimizer:
        parser.error("--checkpoint requires --optimizer: it saves a single run")
    if args.checkpoint and os.path.realpath(args.checkpoint) == os.path.realpath(args.picture):
        parser.error(f"--checkpoint and --picture are the same file: {args.picture}")
    return args


def checkpoint_path(text):
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return text


def exit_with(message):
    print(f"digits.py: {message}", file=sys.stderr)
    sys.exit(2)


def array_module(device):
    """Return the library that creates the arrays. Everything else follows from their type."""
    if device == "cpu":
        return np
    try:
        import cupy
    except ImportError:
        exit_with("--device cuda needs CuPy: pip install cupy-cuda13x (or cupy-cuda12x)")
    if not cupy.is_available():
        exit_with("--device cuda needs a CUDA device, but CuPy found none")
    try:
        x = cupy.zeros((2, 1), dtype=np.float32)
        fastopt.SGD([x])
        fastopt.Dropout(0.5, generator=0)(fastopt.BatchNorm(1, like=x[0])(x))
    except (ImportError, TypeError, ValueError, RuntimeError) as reason:
        exit_with(f"--device cuda needs a fastopt that accepts CuPy arrays: {reason}")
    return cupy


# -- One run -------------------------------------------------------------------------------------


@contextmanager
def catch_signals(enabled):
    """Collect the first Ctrl-C or SIGTERM in a list, if ``enabled``; a second one has its usual effect."""
    caught, before = [], {}

    def catch(number, _):
        caught.append(number)
        for other, handler in before.items():
            signal.signal(other, handler)

    for number in (signal.SIGINT, signal.SIGTERM) if enabled else ():
        before[number] = signal.signal(number, catch)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_one(training, args, console, progress):
    """Train once, print and draw. Returns the exit status."""
    file = args.checkpoint
    if file and os.path.exists(file):
        try:
            training.load_state_dict(fastopt.checkpoint.load(file))
        except (OSError, TypeError, ValueError) as reason:
            exit_with(f"cannot resume from {file}: {reason}")
        console.print(f"Resuming from {file}, {progress_text(training)}.")
    caught = train(training, file, progress)
    if caught:
        console.print(f"Stopped {progress_text(training)}; run the same command again to resume.")
        return 128 + caught[0]
    report(training, console)
    draw(training.history, args.picture)
    console.print(f"Plot: {args.picture}")
    return 0


def train(training, file, progress):
    """Train to the end or, after a signal, to the end of the current step. Returns the signals."""

    def save():
        if file:
            try:
                fastopt.checkpoint.save(file, training.state_dict())
            except OSError as reason:
                exit_with(f"--checkpoint cannot be written: {reason}")

    def epoch_done():
        progress.advance(bar)
        save()

    bar = progress.add_task(
        "training", total=training.settings.epochs, completed=training.batches.epoch
    )
    with progress, catch_signals(bool(file)) as caught:
        save()  # a file that cannot be written is reported now, not after an epoch
        if training.run(lambda: bool(caught), epoch_done):
            return []
        save()
        return caught


def progress_text(training):
    done, total = training.batches.position // training.batches.batch_size, len(training.batches)
    return f"after {training.batches.epoch} epochs and {done} of {total} steps"


def report(training, console):
    settings, history = training.settings, training.history
    part = "validation" if settings.validate else "test"
    weights = [array for name, array in training.params.items() if name[0] == "w"]
    zeros = sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights)
    cells = {name: f"{losses[-1]:.6f}" for name, losses in history.items() if losses}
    cells |= {f"{part} accuracy": f"{training.accuracy(part):.2%}", "zero weights": f"{zeros:.1%}"}
    table = new_table("optimizer", *right("epochs", *cells))
    table.add_row(settings.optimizer, str(training.batches.epoch), *cells.values())
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
    options = {f.name: getattr(args, f.name) for f in fields(Settings)}
    settings = Settings(**{**options, "optimizer": args.optimizer or Settings.optimizer})
    xp = array_module(args.device)
    data = load_data(xp, settings)
    try:
        training = Training(xp, data, settings)
    except ValueError as reason:  # raised by fastopt if options are inconsistent
        exit_with(reason)
    if args.optimizer:
        sys.exit(run_one(training, args, console, progress))
    failed = compare(xp, data, settings, args.picture, console, progress)
    console.print(f"Plot: {args.picture}")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
