"""A monitored value, and for how long it has not improved."""

from __future__ import annotations

import math
from typing import Any

from fastopt import _checks, _state_dict


class MetricMonitor:
    """The common part of early stopping and ReduceOnPlateau."""

    def __init__(self, patience: int, min_delta: float, mode: str) -> None:
        self.patience = _checks.count("patience", patience, 1)
        self.min_delta = _checks.real("min_delta", min_delta, "[0, inf)")
        self.mode = _checks.choice("mode", mode, ("min", "max"))
        self.best = math.inf if self.mode == "min" else -math.inf
        self.waited = 0

    def improves(self, value: float) -> bool:
        if self.mode == "min":
            return value < self.best - self.min_delta
        return value > self.best + self.min_delta

    @property
    def out_of_patience(self) -> bool:
        """Whether none of the last ``patience`` values was an improvement."""
        return self.waited >= self.patience

    def update(self, value: float, count: bool = True) -> bool:
        """Record a value and return :attr:`out_of_patience`."""
        if self.improves(value):
            self.best, self.waited = value, 0
        elif count:
            self.waited += 1
        return self.out_of_patience

    def options(self) -> str:
        return f"patience={self.patience}, min_delta={self.min_delta}, mode={self.mode!r}"

    def state_dict(self) -> dict[str, Any]:
        return {"mode": self.mode, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        _state_dict.check_identity(state, {"mode": self.mode})
        _state_dict.check_keys(state, ("best", "waited"))
        best = _checks.real("best", state["best"], "[-inf, inf]")
        self.best, self.waited = best, _checks.count("waited", state["waited"])
