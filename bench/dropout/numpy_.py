"""NumPy, as its users write it: a mask from uniform random numbers."""

from __future__ import annotations

import numpy as np

from bench.case import Competitor
from bench.dropout import DropoutCase, P

NAME = "NumPy"


def available() -> bool:
    return True


def make(case: DropoutCase) -> Competitor | None:
    if case.device != "cpu":
        return None
    x, dy = case.arrays()
    y, dx = np.empty_like(x), np.empty_like(x)
    rng = np.random.default_rng(0)
    scale = x.dtype.type(1 / (1 - P))

    def forward() -> np.ndarray:
        kept = rng.random(x.shape, np.float32) >= P
        np.multiply(x, kept, out=y)
        np.multiply(y, scale, out=y)
        return kept

    if case.what == "forward":
        return Competitor(forward, lambda: [y])
    kept = forward()

    def backward() -> None:
        np.multiply(dy, kept, out=dx)
        np.multiply(dx, scale, out=dx)

    return Competitor(backward, lambda: [y, dx])
