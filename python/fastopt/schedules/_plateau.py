"""A learning rate that is reduced when a monitored value no longer improves."""

from __future__ import annotations

from typing import Any, Literal

from fastopt import _checks, _state_dict
from fastopt._metric_monitor import MetricMonitor
from fastopt.schedules._schedule import RATE


class ReduceOnPlateau:
    r"""Reduce the learning rate by ``factor`` when a value has not improved for ``patience`` updates in a row.

    ``update(value)``, called for example once per epoch, returns the rate to use from then on, which is also
    the attribute ``lr``. An improvement is a value below :math:`\text{best} - \mathtt{min\_delta}`
    (``mode="min"``), or above :math:`\text{best} + \mathtt{min\_delta}` (``"max"``); NaN is never one.

    Args:
        lr: the initial learning rate.
        factor: in (0, 1).
        patience: the learning rate is reduced at the ``patience``-th update in a row without an improvement.
        min_delta, mode: define an improvement, as above.
        cooldown: number of updates after a reduction that do not count.
        min_lr: a lower bound of the reductions.

    >>> import fastopt
    >>> plateau = fastopt.schedules.ReduceOnPlateau(1.0, factor=0.5, patience=2)
    >>> [plateau.update(loss) for loss in (3.0, 2.0, 2.0, 2.0, 2.0, 2.0)]
    [1.0, 1.0, 1.0, 0.5, 0.5, 0.25]

    Conventions: Keras's ``ReduceLROnPlateau``, except that its cool-down ends one update earlier. torch's waits
    one update longer, and its ``threshold`` is relative to the best value unless ``threshold_mode="abs"``.
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
        """Record a new value, a number or a zero-dimensional array, and return the rate from now on."""
        value = _checks.scalar("value", value)
        resting = self._cooling > 0
        self._cooling -= resting
        if self._monitor.update(value, count=not resting) and self.lr > self.min_lr:
            self.lr = max(self.lr * self.factor, self.min_lr)
            self._monitor.waited, self._cooling = 0, self.cooldown
        return self.lr

    def state_dict(self) -> dict[str, Any]:
        """Return the rate, the best value, and the lengths of the plateau and of the cool-down so far."""
        return {"lr": self.lr, "cooling": self._cooling, **self._monitor.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state returned by :meth:`state_dict`. Raises ``ValueError`` or ``TypeError`` if it does not
        fit; nothing is changed then."""
        _state_dict.check_keys(state, ("lr", "cooling"))
        lr, cooling = _checks.real("lr", state["lr"], RATE), _checks.count("cooling", state["cooling"])
        self._monitor.load_state_dict(state)
        self.lr, self._cooling = lr, cooling

    def __repr__(self) -> str:
        return (
            f"ReduceOnPlateau({self.lr}, factor={self.factor}, {self._monitor.options()}, "
            f"cooldown={self.cooldown}, min_lr={self.min_lr})"
        )
