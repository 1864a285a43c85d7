"""Command-line options of ``digits.py``, each with its range, default and help text."""

import argparse
import math
from dataclasses import dataclass, field

from fastopt import schedules

# comparison.py explains how the learning rates were chosen.
OPTIMIZERS = {
    "SGD": {"lr": 0.8},
    "Momentum": {"lr": 0.08, "clip_norm": 1.0},
    "Nesterov": {"lr": 0.08},
    "AdaGrad": {"lr": 0.05},
    "RMSprop": {"lr": 0.016},
    "Adam": {"lr": 0.008},
    "AdamW": {"lr": 0.004, "weight_decay": 0.1},
}


def warmup(lr, steps, warmup_steps):
    return schedules.Warmup(warmup_steps, schedules.Cosine(lr, steps=max(steps - warmup_steps, 1)))


# Each maps the peak learning rate and the number of steps of the whole run to a schedule.
SCHEDULES = {
    "constant": lambda lr, steps: schedules.Constant(lr),
    "step": lambda lr, steps: schedules.Step(lr, every=max(steps // 3, 1)),
    "exponential": lambda lr, steps: schedules.Exponential(lr, factor=0.01, every=steps),
    "linear": lambda lr, steps: schedules.Polynomial(lr, steps=steps),
    "cosine": lambda lr, steps: schedules.Cosine(lr, steps=steps),
    "warmup": lambda lr, steps: warmup(lr, steps, steps // 10 + 1),
    "one-cycle": lambda lr, steps: schedules.OneCycle(lr, steps=steps),
    "plateau": lambda lr, steps: schedules.Constant(lr),  # times the factor of ReduceOnPlateau
}


def number(kind, least, below=math.inf):
    """Return an argparse type: it converts a text to an ``int`` or ``float`` in [least, below)."""

    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value < below:
            noun = "an integer" if kind is int else "a number"
            limit = "" if below == math.inf else f" and < {below}"
            raise argparse.ArgumentTypeError(f"expected {noun} >= {least}{limit}, got {text!r}")
        return value

    return convert


def option(default, help, **kwargs):
    return field(default=default, metadata={"help": help, **kwargs})


@dataclass(frozen=True)
class Settings:
    """All settings that affect the result of a run. None stands for the value of the optimizer's entry in
    OPTIMIZERS, or else for fastopt's default."""

    optimizer: str = option(
        "Adam", "train once with this optimizer (default: compare all)", choices=OPTIMIZERS
    )
    lr: float | None = option(None, "peak learning rate", type=number(float, 0))
    schedule: str = option("cosine", "learning rate schedule (default: %(default)s)", choices=SCHEDULES)
    clip_norm: float | None = option(None, "maximum norm of the gradients", type=number(float, 0))
    l1: float | None = option(None, "L1 penalty (proximal: makes exact zeros)", type=number(float, 0))
    l2: float | None = option(None, "L2 penalty, added to the gradients", type=number(float, 0))
    weight_decay: float | None = option(None, "decoupled weight decay", type=number(float, 0))
    ema: float | None = option(
        None, "use the moving average of the weights with this decay", type=number(float, 0, 1)
    )
    early_stopping: int | None = option(
        None, "stop after so many epochs without a lower validation loss", type=number(int, 1)
    )
    epochs: int = option(20, "default: %(default)s", type=number(int, 1))
    batch_size: int = option(32, "default: %(default)s", type=number(int, 1))
    layers: int = option(1, "number of hidden layers (default: %(default)s)", type=number(int, 1))
    hidden: int = option(100, "units per hidden layer (default: %(default)s)", type=number(int, 1))
    batch_norm: bool = option(False, "apply BatchNorm in every hidden layer", action="store_true")
    dropout: float = option(0.0, "drop probability of the hidden units", type=number(float, 0, 1))
    augment: int = option(4, "shifted copies of each digit (default: %(default)s)", type=number(int, 0))
    validate: bool = option(
        False, "report the accuracy on validation digits instead of test digits", action="store_true"
    )
    seed: int = option(0, "seed of weights, batches, dropout and shifts", type=number(int, 0, 2**64))
    device: str = option("cpu", "cpu: NumPy, cuda: CuPy", choices=("cpu", "cuda"))

    @property
    def hyper(self):
        """The optimizer's hyper-parameters."""
        names = "lr", "clip_norm", "l1", "l2", "weight_decay"
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        proximal = {"l1_mode": "proximal"} if self.l1 else {}
        return {**OPTIMIZERS[self.optimizer], **given, **proximal}

    @property
    def holds_out(self):
        """Whether some of the training digits are held out for validation."""
        return self.validate or self.early_stopping is not None or self.schedule == "plateau"


def add_arguments(parser):
    """Add a command-line option for each of the settings."""
    for f in Settings.__dataclass_fields__.values():
        kwargs = dict(f.metadata)
        if "type" in kwargs:
            kwargs["metavar"] = "N" if "int" in str(f.type) else "X"
        parser.add_argument("--" + f.name.replace("_", "-"), default=f.default, **kwargs)
