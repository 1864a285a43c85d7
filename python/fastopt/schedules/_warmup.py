"""Learning rates that increase first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fastopt import _checks
from fastopt._ieee_math import cos_pi
from fastopt.schedules._schedule import Schedule


@dataclass(frozen=True)
class Warmup(Schedule):
    r"""A linear increase from ``start`` to the first rate of another schedule, which follows it:
    :math:`\eta_t = \eta_\text{start} + (\eta'_0 - \eta_\text{start})\, t / T` for :math:`t < T`, then
    :math:`\eta'_{t - T}`.

    Args:
        steps: the length :math:`T` of the increase.
        then: the schedule that follows, or any other function of the step.
        start: the learning rate of step 0. With 0, that step changes nothing, as in optax and transformers.

    >>> from fastopt import schedules
    >>> [schedules.Warmup(2, schedules.Step(1.0, every=1, factor=0.5))(t) for t in range(5)]
    [0.0, 0.5, 1.0, 0.5, 0.25]

    Source: Goyal et al. 2017, section 2.2, arXiv:1706.02677.
    """

    steps: int
    then: Callable[[int], float]
    start: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.then) or isinstance(self.then, type):
            raise TypeError(f"then must be a schedule, got {self.then!r}")

    def _rate(self, step: int) -> float:
        if step >= self.steps:
            return self.then(step - self.steps)
        return self.start + (self.then(0) - self.start) * (step / self.steps)


@dataclass(frozen=True)
class OneCycle(Schedule):
    r"""An increase from ``lr / start_div`` to ``lr`` in the first part of a run, then a decrease to
    ``lr / start_div / end_div`` at its last step, each along half a cosine wave or a line.

    Args:
        lr: the peak learning rate, at step ``warmup * steps - 1``.
        steps: the length of the run, at least 2; later steps keep the last rate.
        warmup: the fraction of the steps in which the learning rate increases, in (0, 1).
        start_div, end_div: divisors for the first and the last rate.
        shape: ``"cosine"`` or ``"linear"``.

    >>> from fastopt import schedules
    >>> s = schedules.OneCycle(1.0, steps=10, warmup=0.5, shape="linear", start_div=10, end_div=10)
    >>> s(0), s(9), max(range(10), key=s)
    (0.1, 0.01, 4)

    Conventions: torch's ``OneCycleLR`` with ``max_lr``, ``pct_start``, ``div_factor`` and ``final_div_factor``;
    momentum is not cycled. Source: Smith & Topin 2018, Super-Convergence, arXiv:1708.07120.
    """

    lr: float
    steps: int
    warmup: float = 0.3
    start_div: float = 25.0
    end_div: float = 1e4
    shape: Literal["cosine", "linear"] = "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.count("steps", self.steps, 2)

    def _rate(self, step: int) -> float:
        top, last = max(self.warmup * self.steps - 1.0, 0.0), self.steps - 1.0
        low = self.lr / self.start_div
        if step <= top:
            return self._between(low, self.lr, step / top if top else 1.0)
        return self._between(self.lr, low / self.end_div, (min(step, last) - top) / (last - top))

    def _between(self, begin: float, end: float, t: float) -> float:
        if self.shape == "cosine":
            t = 0.5 - 0.5 * float(cos_pi(t))
        return begin * (1.0 - t) + end * t
