"""Dropout over a transformer's activations, forward and backward.

A competitor is a module here with ``NAME``, ``available()`` and ``make(case)``, which returns a
:class:`~bench.case.Competitor`, or ``None`` if it does not support the case. Its results are ``y`` (forward),
or ``y`` and ``dx`` (backward). Every forward call draws a new mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bench.case import Case, Competitor, WrongError, compare, epsilon, sample
from bench.workloads import TRANSFORMER_ACTIVATIONS, Shape, Shapes

P = 0.1  # the drop probability

WHAT = ("forward", "backward")
DEFAULT = WHAT
WORKLOADS = (*TRANSFORMER_ACTIVATIONS, "array")
COMPETITORS = __name__
SMALL = {"workload": "array", "size": 4096}


@dataclass(frozen=True)
class DropoutCase(Case):
    task = "dropout"

    @property
    def shape(self) -> Shape:
        return (self.size,) if self.workload == "array" else TRANSFORMER_ACTIVATIONS[self.workload]

    @property
    def shapes(self) -> Shapes:
        return [self.shape]

    @property
    def bytes(self) -> int:
        """One array is read and one is written; the traffic of a stored mask is not counted."""
        return self.numpy_dtype.itemsize * self.elements * 2

    @property
    def flops(self) -> int:
        """The scaling only; the random bits are computed with integers."""
        return self.elements

    @property
    def working_set(self) -> int:
        return self.bytes

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ``x`` and ``dy``, which must not be written."""
        return _drawn(self)

    def check(self, competitor: Competitor) -> None:
        """Check the results of one call.

        Kept elements must be x / (1 - p) in float64, rounded once or twice; dropped elements must be zero.
        The number of kept elements must be plausible (one false alarm in 10^9), and backward must drop the
        same elements."""
        competitor.run()
        inputs = [sample(a) for a in _drawn(self)]
        results = [sample(a) for a in competitor.results()]
        kept = results[0] != 0
        tolerance = 6 * (P * (1 - P) / kept.size) ** 0.5
        if abs(kept.mean() - (1 - P)) > tolerance:
            raise WrongError(f"{kept.mean():.4f} of the elements are kept, expected {1 - P}")
        for given, got in zip(inputs, results, strict=False):
            want = np.where(kept, given / (1 - P), 0.0)
            compare(got, want, 2 * epsilon(self.numpy_dtype) * np.abs(want))


@lru_cache(maxsize=1)
def _drawn(case: DropoutCase) -> tuple[np.ndarray, np.ndarray]:
    """Draw from [0.5, 1.5): never zero, which would look dropped."""
    rng = np.random.default_rng(0)
    x, dy = ((rng.random(case.shape, np.float32) + 0.5).astype(case.numpy_dtype) for _ in range(2))
    return x, dy


def release() -> None:
    """Free the random arrays."""
    _drawn.cache_clear()


CASE = DropoutCase


def suite(quick: bool, device: str) -> Iterator[DropoutCase]:
    for workload in ("residual",) if quick else TRANSFORMER_ACTIVATIONS:
        for what in WHAT:
            yield DropoutCase(what, workload, section="a transformer's")
    if not quick:
        for power in range(10, 27, 4):
            fast_enough = ("torch",) if power > 24 else ("",)
            yield DropoutCase("forward", "array", 2**power, section="growth", peers=fast_enough)
        yield DropoutCase("forward", "residual", dtype="bfloat16", section="bfloat16")
