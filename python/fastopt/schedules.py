r"""Learning rates that change with the step.

A schedule is a function of the step, counted from 0, and holds no state: a run that is resumed needs the step
alone, and an optimizer has that in ``step_count``.

>>> import numpy as np, fastopt
>>> opt = fastopt.SGD(np.ones(3), lr=1.0)
>>> schedule = fastopt.schedules.Warmup(10, fastopt.schedules.Cosine(0.5, steps=100))
>>> opt.lr = schedule(opt.step_count)  # before each opt.step(grads)

With the epoch in place of the step it is a schedule by epochs; with a rate of 1 it is a factor for rates that
differ from group to group. :class:`ReduceOnPlateau` alone has state, as it watches the loss.

Rates are Python floats, computed from IEEE operations alone: the same bits on every machine. Schedules are
frozen dataclasses: they compare, print and pickle. Wrong values raise ``ValueError``, wrong kinds
``TypeError``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal

from fastopt import _checks, _states
from fastopt._elementary import cos_pi, power
from fastopt._watch import Watch

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "MultiStep",
    "OneCycle",
    "Polynomial",
    "ReduceOnPlateau",
    "Schedule",
    "Step",
    "Warmup",
]

RATE, FACTOR = "[0, inf)", "(0, inf)"

# What each field must be, in whichever schedule it stands.
CHECKS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("lr", "end", "start"), partial(_checks.real, interval=RATE)),
    **dict.fromkeys(
        ("factor", "power", "start_div", "end_div"), partial(_checks.real, interval=FACTOR)
    ),
    **dict.fromkeys(("steps", "every", "growth"), partial(_checks.count, least=1)),
    "warmup": partial(_checks.real, interval="(0, 1)"),
    "restarts": _checks.switch,
    "shape": partial(_checks.choice, valid=("cosine", "linear")),
}


@dataclass(frozen=True)
class Schedule:
    """The base of the schedules: ``schedule(step)`` is the rate of the step, counted from 0."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name in CHECKS:
                CHECKS[field.name](field.name, getattr(self, field.name))

    def __call__(self, step: int) -> float:
        return float(self._rate(_checks.count("step", step)))

    @abstractmethod
    def _rate(self, step: int) -> float: ...


@dataclass(frozen=True)
class Constant(Schedule):
    r"""The same rate always, :math:`\eta_t = \eta`.

    >>> from fastopt import schedules
    >>> schedules.Constant(0.1)(1000)
    0.1
    """

    lr: float

    def _rate(self, step: int) -> float:
        return self.lr


@dataclass(frozen=True)
class Step(Schedule):
    r"""A fall by ``factor`` every so many steps, :math:`\eta_t = \eta f^{\lfloor t / \text{every} \rfloor}`.

    >>> from fastopt import schedules
    >>> [schedules.Step(1.0, every=2, factor=0.5)(t) for t in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]

    Conventions: torch's ``StepLR``, with ``gamma`` and ``step_size``.
    """

    lr: float
    every: int
    factor: float = 0.1

    def _rate(self, step: int) -> float:
        return self.lr * power(self.factor, step // self.every)


@dataclass(frozen=True)
class MultiStep(Schedule):
    r"""A fall by ``factor`` at each milestone, :math:`\eta_t = \eta f^k` with :math:`k` milestones at or before
    :math:`t`.

    >>> from fastopt import schedules
    >>> [schedules.MultiStep(1.0, [2, 3], factor=0.5)(t) for t in range(5)]
    [1.0, 1.0, 0.5, 0.25, 0.25]

    Conventions: torch's ``MultiStepLR``, optax's ``piecewise_constant_schedule``.
    """

    lr: float
    milestones: Sequence[int]
    factor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.milestones, Iterable):
            raise TypeError(f"milestones must be a sequence of steps, got {self.milestones!r}")
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for i, milestone in enumerate(self.milestones):
            _checks.count(f"milestones[{i}]", milestone)

    def _rate(self, step: int) -> float:
        return self.lr * power(self.factor, sum(milestone <= step for milestone in self.milestones))


@dataclass(frozen=True)
class Exponential(Schedule):
    r"""A steady fall, :math:`\eta_t = \eta f^{t / \text{every}}`.

    >>> from fastopt import schedules
    >>> [schedules.Exponential(1.0, factor=0.25, every=2)(t) for t in range(4)]
    [1.0, 0.5, 0.25, 0.125]

    Conventions: torch's ``ExponentialLR`` has ``every=1``; Keras's ``ExponentialDecay`` calls it
    ``decay_steps``, and its ``staircase=True`` is :class:`Step`.
    """

    lr: float
    factor: float
    every: int = 1

    def _rate(self, step: int) -> float:
        return self.lr * power(self.factor, step / self.every)


@dataclass(frozen=True)
class Polynomial(Schedule):
    r"""A fall to ``end`` in so many steps, where it stays:
    :math:`\eta_t = \eta_\text{end} + (\eta - \eta_\text{end}) (1 - t / T)^p`. With power 1, a straight line.

    >>> from fastopt import schedules
    >>> [schedules.Polynomial(1.0, steps=4, power=2)(t) for t in range(6)]
    [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]

    Conventions: optax's ``polynomial_schedule``, Keras's ``PolynomialDecay``; torch's ``PolynomialLR`` has
    ``end=0``. Source: Goodfellow, Bengio & Courville 2016, equation 8.14, is power 1.
    """

    lr: float
    steps: int
    end: float = 0.0
    power: float = 1.0

    def _rate(self, step: int) -> float:
        left = 1.0 - min(step, self.steps) / self.steps
        return self.end + (self.lr - self.end) * power(left, self.power)


@dataclass(frozen=True)
class Cosine(Schedule):
    r"""Half a wave from the rate down to ``end``,

    .. math:: \eta_t = \eta_\text{end} + (\eta - \eta_\text{end}) \frac{1 + \cos(\pi t / T)}2

    After ``steps``, :math:`T`, it stays there; or with ``restarts`` it starts again, and each wave is
    ``growth`` times as long as the one before.

    >>> from fastopt import schedules
    >>> [schedules.Cosine(1.0, steps=2)(t) for t in range(4)]
    [1.0, 0.5, 0.0, 0.0]
    >>> [schedules.Cosine(1.0, steps=2, restarts=True, growth=2)(t) for t in (0, 1, 2, 4, 6)]
    [1.0, 0.5, 1.0, 0.5, 1.0]

    Conventions: torch's ``CosineAnnealingLR`` (which swings up again after ``T_max``) and
    ``CosineAnnealingWarmRestarts`` with ``T_0`` and ``T_mult``. Source: Loshchilov & Hutter 2017, SGDR,
    equation 5, arXiv:1608.03983.
    """

    lr: float
    steps: int
    end: float = 0.0
    restarts: bool = False
    growth: int = 1

    def _rate(self, step: int) -> float:
        length = self.steps
        if self.restarts and self.growth == 1:
            step %= length
        while self.restarts and step >= length:
            step, length = step - length, length * self.growth
        t = min(step, length) / length
        return self.end + (self.lr - self.end) * (0.5 + 0.5 * float(cos_pi(t)))


@dataclass(frozen=True)
class Warmup(Schedule):
    r"""A straight line from ``start`` to the first rate of another schedule, which then begins:
    :math:`\eta_t = \eta_\text{start} + (\eta'_0 - \eta_\text{start})\, t / T` for :math:`t < T`, then
    :math:`\eta'_{t - T}`.

    Args:
        steps: :math:`T`.
        then: any schedule, or any function of the step.
        start: the rate of step 0; with 0 that step does nothing, as in optax and transformers.

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
        if not callable(self.then):
            raise TypeError(f"then must be a schedule, got {self.then!r}")

    def _rate(self, step: int) -> float:
        if step >= self.steps:
            return self.then(step - self.steps)
        return self.start + (self.then(0) - self.start) * (step / self.steps)


@dataclass(frozen=True)
class OneCycle(Schedule):
    r"""Up from ``lr / start_div`` to ``lr`` in the first part of a run, down to ``lr / start_div / end_div`` at
    its last step, each along half a cosine wave (or a line).

    Args:
        lr: the highest rate, at step ``warmup * steps - 1``.
        steps: of the whole run, at least 2; later steps keep the last rate.
        warmup: the share of the steps in which the rate rises, above 0 and below 1.
        start_div, end_div: how far below.
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
        self._watch = Watch(patience, min_delta, mode)
        self._cooling = 0

    def update(self, value: float) -> float:
        """Look at a new value, a number or an array without axes; returns the rate from now on."""
        value = _checks.number("value", value)
        resting = self._cooling > 0
        self._cooling -= resting
        if self._watch.see(value, counting=not resting) and self.lr > self.min_lr:
            self.lr = max(self.lr * self.factor, self.min_lr)
            self._watch.waited, self._cooling = 0, self.cooldown
        return self.lr

    def state_dict(self) -> dict[str, Any]:
        """The rate, the best value, and how long the plateau and the cool-down have lasted."""
        return {"lr": self.lr, "cooling": self._cooling, **self._watch.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was called."""
        _states.entries(state, ("lr", "cooling"))
        lr, cooling = _checks.real("lr", state["lr"], RATE), _checks.count("cooling", state["cooling"])
        self._watch.load_state_dict(state)
        self.lr, self._cooling = lr, cooling
