"""Constant and decaying learning rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fastopt import _checks
from fastopt._ieee_math import cos_pi, power
from fastopt.schedules._schedule import Schedule


def _decayed(lr: float, factor: float, exponent: float) -> float:
    """lr factor**exponent; a rate of 0 stays 0 where a growing factor overflows."""
    return lr * power(factor, exponent) if lr else lr


@dataclass(frozen=True)
class Constant(Schedule):
    r"""A constant learning rate, :math:`\eta_t = \eta`.

    >>> from fastopt import schedules
    >>> schedules.Constant(0.1)(1000)
    0.1
    """

    lr: float

    def _rate(self, step: int) -> float:
        return self.lr


@dataclass(frozen=True)
class Step(Schedule):
    r"""Decay by ``factor`` every ``every`` steps, :math:`\eta_t = \eta f^{\lfloor t / \text{every} \rfloor}`.

    >>> from fastopt import schedules
    >>> [schedules.Step(1.0, every=2, factor=0.5)(t) for t in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]

    Conventions: torch's ``StepLR``, with ``gamma`` and ``step_size``.
    """

    lr: float
    every: int
    factor: float = 0.1

    def _rate(self, step: int) -> float:
        return _decayed(self.lr, self.factor, step // self.every)


@dataclass(frozen=True)
class MultiStep(Schedule):
    r"""Decay by ``factor`` at each milestone, :math:`\eta_t = \eta f^k` with :math:`k` milestones at or before
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
        milestones = (_checks.count(f"milestones[{i}]", m) for i, m in enumerate(self.milestones))
        self._keep("milestones", tuple(milestones))

    def _rate(self, step: int) -> float:
        return _decayed(self.lr, self.factor, sum(m <= step for m in self.milestones))


@dataclass(frozen=True)
class Exponential(Schedule):
    r"""Exponential decay, :math:`\eta_t = \eta f^{t / \text{every}}`.

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
        return _decayed(self.lr, self.factor, step / self.every)


@dataclass(frozen=True)
class Polynomial(Schedule):
    r"""Polynomial decay to ``end`` in ``steps`` steps :math:`T`, constant afterwards:
    :math:`\eta_t = \eta_\text{end} + (\eta - \eta_\text{end}) (1 - t / T)^p`. Power 1 is linear
    decay. Step 0 has exactly the rate ``lr``.

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
        if step == 0:
            return self.lr  # which the sum below rounds
        left = 1.0 - min(step, self.steps) / self.steps
        return self.end + (self.lr - self.end) * power(left, self.power)


@dataclass(frozen=True)
class Cosine(Schedule):
    r"""Decay to ``end`` along half a cosine wave,

    .. math:: \eta_t = \eta_\text{end} + (\eta - \eta_\text{end}) \frac{1 + \cos(\pi t / T)}2

    It stays at ``end`` after ``steps`` steps :math:`T`. With ``restarts`` it starts again instead, and each
    wave is ``growth`` times as long as the one before. The first step of a wave has exactly the rate ``lr``.

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
        if step == 0:
            return self.lr  # which the sum below rounds
        t = min(step, length) / length
        return self.end + (self.lr - self.end) * (0.5 + 0.5 * float(cos_pi(t)))
