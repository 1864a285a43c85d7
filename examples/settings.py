"""What a run on the digits can be told: the options of ``digits.py``, each with its range, default and help."""

import argparse
import math
from dataclasses import dataclass, field

from fastopt import schedules

# comparison.py says how the rates were chosen.
OPTIMIZERS = {
    "SGD": {"lr": 0.8},
    "Momentum": {"lr": 0.08, "clip_norm": 1.0},
    "Nesterov": {"lr": 0.08},
    "AdaGrad": {"lr": 0.05},
    "RMSprop": {"lr": 0.016},
    "Adam": {"lr": 0.008},
    "AdamW": {"lr": 0.004, "weight_decay": 0.1},
}


def warmed_up(lr, steps, up):
    return schedules.Warmup(up, schedules.Cosine(lr, steps=max(steps - up, 1)))


# From the rate at its highest and the steps of the whole run.
SCHEDULES = {
    "constant": lambda lr, steps: schedules.Constant(lr),
    "step": lambda lr, steps: schedules.Step(lr, every=max(steps // 3, 1)),
    "exponential": lambda lr, steps: schedules.Exponential(lr, factor=0.01, every=steps),
    "linear": lambda lr, steps: schedules.Polynomial(lr, steps=steps),
    "cosine": lambda lr, steps: schedules.Cosine(lr, steps=steps),
    "warmup": lambda lr, steps: warmed_up(lr, steps, steps // 10 + 1),
    "one-cycle": lambda lr, steps: schedules.OneCycle(lr, steps=steps),
    "plateau": lambda lr, steps: schedules.Constant(lr),  # times what ReduceOnPlateau leaves of it
}


def number(kind, least, below=math.inf):
    """A function for argparse, from a text to an ``int`` or ``float`` in [least, below)."""

    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value < below:
            sort = "a whole number" if kind is int else "a number"
            limit = "" if below == math.inf else f" and below {below}"
            raise argparse.ArgumentTypeError(f"expected {sort} from {least}{limit}, got {text!r}")
        return value

    return convert


def option(default, help, **how):
    return field(default=default, metadata={"help": help, **how})


@dataclass(frozen=True)
class Settings:
    """All that decides what a run computes. None leaves a value to the optimizer's entry in OPTIMIZERS, or else
    to fastopt."""

    optimizer: str = option(
        "Adam", "train once, with this one; else all are compared", choices=OPTIMIZERS
    )
    lr: float | None = option(None, "rate at its highest", type=number(float, 0))
    schedule: str = option("cosine", "how the rate changes (default: %(default)s)", choices=SCHEDULES)
    clip_norm: float | None = option(None, "limit of the gradients' norm", type=number(float, 0))
    l1: float | None = option(None, "L1 penalty, which makes exact zeros", type=number(float, 0))
    l2: float | None = option(None, "L2 penalty, added to the gradients", type=number(float, 0))
    weight_decay: float | None = option(None, "decay beside the gradients", type=number(float, 0))
    ema: float | None = option(
        None, "take the weights' average with this decay", type=number(float, 0, 1)
    )
    early_stopping: int | None = option(
        None, "stop after so many epochs without a lower validation loss", type=number(int, 1)
    )
    epochs: int = option(20, "default: %(default)s", type=number(int, 1))
    batch_size: int = option(32, "default: %(default)s", type=number(int, 1))
    layers: int = option(1, "hidden layers (default: %(default)s)", type=number(int, 1))
    hidden: int = option(100, "units in each of them (default: %(default)s)", type=number(int, 1))
    batch_norm: bool = option(False, "normalise each of them", action="store_true")
    dropout: float = option(0.0, "drop their units with this probability", type=number(float, 0, 1))
    augment: int = option(4, "shifted copies of each digit (default: %(default)s)", type=number(int, 0))
    validate: bool = option(False, "report on validation digits, not the test's", action="store_true")
    seed: int = option(0, "of weights, batches, dropout, shifts", type=number(int, 0, 2**64))
    device: str = option("cpu", "NumPy, or CuPy on a GPU", choices=("cpu", "cuda"))

    @property
    def hyper(self):
        """The optimizer's hyper-parameters."""
        names = "lr", "clip_norm", "l1", "l2", "weight_decay"
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        proximal = {"l1_mode": "proximal"} if self.l1 else {}
        return {**OPTIMIZERS[self.optimizer], **given, **proximal}

    @property
    def holds_out(self):
        """Whether some digits are kept from training to validate with."""
        return self.validate or self.early_stopping is not None or self.schedule == "plateau"


def added_to(parser):
    """The parser, with an option for each of the settings."""
    for f in Settings.__dataclass_fields__.values():
        how = dict(f.metadata)
        if "type" in how:
            how["metavar"] = "N" if "int" in str(f.type) else "X"
        parser.add_argument("--" + f.name.replace("_", "-"), default=f.default, **how)
    return parser
