"""The common base of the schedules."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from fastopt import _checks

RATE, FACTOR = "[0, inf)", "(0, inf)"

# Checks of the fields of all schedules; each returns the value to store, a built-in Python type.
CHECKS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("lr", "end", "start"), partial(_checks.real, interval=RATE)),
    **dict.fromkeys(
        ("factor", "power", "start_div", "end_div"), partial(_checks.real, interval=FACTOR)
    ),
    **dict.fromkeys(("steps", "every", "growth"), partial(_checks.count, least=1)),
    "warmup": partial(_checks.real, interval="(0, 1)"),
    "restarts": _checks.boolean,
    "shape": partial(_checks.choice, valid=("cosine", "linear")),
}


@dataclass(frozen=True)
class Schedule:
    """Base class of the schedules: ``schedule(step)`` is the learning rate of a step, counted from 0."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name in CHECKS:
                self._keep(field.name, CHECKS[field.name](field.name, getattr(self, field.name)))

    def _keep(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # a frozen dataclass allows no assignment

    def __call__(self, step: int) -> float:
        return float(self._rate(_checks.count("step", step)))

    @abstractmethod
    def _rate(self, step: int) -> float: ...
