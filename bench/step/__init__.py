"""The task: one optimizer step over a list of arrays, with or without a global-norm clip.

A competitor is a module here with ``NAME``, ``available()`` and ``make(case)``, which takes its own copy of
the arrays and gives a :class:`Contestant`, or ``None`` if it cannot do the case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.workloads import Shapes

#: Slots of state by optimizer: what must move is parameter and state twice, the gradient once.
SLOTS = {
    "sgd": 0,
    "momentum": 1,
    "nesterov": 1,
    "adagrad": 1,
    "rmsprop": 1,
    "adam": 2,
    "adamw": 2,
}
LR = 1e-3
MAX_NORM = 1.0


@dataclass
class Case:
    rule: str
    shapes: Shapes
    clip: bool
    seed: int = 0

    def arrays(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Parameters and gradients, the same for every competitor: normal, never zeros."""
        rng = np.random.default_rng(self.seed)
        new = [rng.standard_normal(shape, np.float32) for shape in self.shapes * 2]
        return new[: len(self.shapes)], new[len(self.shapes) :]

    @property
    def elements(self) -> int:
        return sum(int(np.prod(shape)) for shape in self.shapes)

    @property
    def bytes(self) -> int:
        """The least that must move, for float32."""
        return 4 * self.elements * (3 + 2 * SLOTS[self.rule] + self.clip)


@dataclass
class Contestant:
    step: Callable[[], object]
    params: Callable[[], list[np.ndarray]]
    limit: Callable[[], object] | None = None  # fastopt brings the limit along
