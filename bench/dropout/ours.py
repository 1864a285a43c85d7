"""fastopt."""

from __future__ import annotations

from itertools import count

import numpy as np

from bench import limit
from bench.case import Contestant
from bench.dropout import DropoutCase, P
from fastopt import functional as F

NAME = "fastopt"


def available() -> bool:
    return True


def make(case: DropoutCase) -> Contestant:
    x, dy = case.arrays()
    y, dx = np.empty_like(x), np.empty_like(x)
    offsets = count()

    def forward():
        return F.dropout_forward(x, P, seed=1, offset=next(offsets), out=y)

    if case.what == "forward":
        return Contestant(forward, lambda: [y], lambda: limit.copy(x, y))
    _, saved = forward()
    return Contestant(
        lambda: F.dropout_backward(dy, saved, out=dx),
        lambda: [y, dx],
        lambda: limit.copy(dy, dx),
    )
