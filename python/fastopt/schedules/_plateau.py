"""A rate that falls when a watched value no longer improves."""

from __future__ import annotations

from typing import Any, Literal

from fastopt import _checks, _state_dict
from fastopt._metric_monitor import MetricMonitor
from fastopt.schedules._schedule import RATE


class ReduceOnPlateau:
    r"""A fall by ``factor`` whenever a watched value has not improved for ``patience`` updates in a row.

    ``update(value)``, once an epoch or so, returns the rate to use from then on; ``lr`` is the rate, too. An
    improvement is a value below :math:`\text{best} - \mathtt{min\_delta}` (``mode="min"``), or above
    :math:`\text{best} + \mathtt{min\_delta}` (``"max"``); NaN is none.

    Args:
        lr: the first rate.
        factor: between 0 and 1.
        patience: the update that is the ``patience``-th without an improvement makes the rate fall.
        min_delta, mode: what an improvement is.
        cooldown: updates after a fall that are not counted.
        min_lr: no fall goes below it.

    >>> import fastopt
    >>> plateau = fastopt.schedules.ReduceOnPlateau(1.0, factor=0.5, patience=2)
    >>> [plateau.update(loss) for loss in (3.0, 2.0, 2.0, 2.0, 2.0, 2.0)]
    [1.0, 1.0, 1.0, 0.5, 0.5, 0.25]

    Conventions: Keras's ``ReduceLROnPlateau``, but for the cool-down, which there ends an update earlier.
    torch's waits for one update more, and its ``threshold`` is a share of the best value unless
    ``threshold_mode="abs"``.
    """

    def __init__(
        self,
        lr: float,
        *,
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 0.0,
        mode: Literal["min", "max"] = "min",
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        self.lr = _checks.real("lr", lr, RATE)
        self.factor = _checks.real("factor", factor, "(0, 1)")
        self.cooldown = _checks.count("cooldown", cooldown)
        self.min_lr = _checks.real("min_lr", min_lr, RATE)
        self._monitor = MetricMonitor(patience, min_delta, mode)
        self._cooling = 0

    def update(self, value: float) -> float:
        """Look at a new value, a number or an array without axes; returns the rate from now on."""
        value = _checks.scalar("value", value)
        resting = self._cooling > 0
        self._cooling -= resting
        if self._monitor.update(value, count=not resting) and self.lr > self.min_lr:
            self.lr = max(self.lr * self.factor, self.min_lr)
            self._monitor.waited, self._cooling = 0, self.cooldown
        return self.lr

    def state_dict(self) -> dict[str, Any]:
        """The rate, the best value, and how long the plateau and the cool-down have lasted."""
        return {"lr": self.lr, "cooling": self._cooling, **self._monitor.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was called."""
        _state_dict.check_keys(state, ("lr", "cooling"))
        lr, cooling = _checks.real("lr", state["lr"], RATE), _checks.count("cooling", state["cooling"])
        self._monitor.load_state_dict(state)
        self.lr, self._cooling = lr, cooling
