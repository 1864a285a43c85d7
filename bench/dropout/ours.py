"""fastopt."""

from __future__ import annotations

from itertools import count

import numpy as np

from bench import device, limit
from bench.case import Contestant
from bench.dropout import DropoutCase, P
from fastopt import functional as F

NAME = "fastopt"


def available() -> bool:
    return True


def make(case: DropoutCase) -> Contestant:
    x, dy = device.put(case, case.arrays())
    poison = np.full(case.shape, np.nan, case.numpy_dtype)
    (y,) = device.put(case, [poison])
    offsets = count()

    def forward():
        return F.dropout_forward(x, P, seed=1, offset=next(offsets), out=y)

    def contestant(run, arrays: list, source, target) -> Contestant:
        moved = device.copy(case.bytes) if case.device == "cuda" else lambda: limit.copy(source, target)
        return Contestant(run, lambda: device.get(arrays), moved, capture=device.capture)

    if case.what == "forward":
        return contestant(forward, [y], x, y)
    _, saved = forward()
    (dx,) = device.put(case, [poison.copy()])
    return contestant(lambda: F.dropout_backward(dy, saved, out=dx), [y, dx], dy, dx)
