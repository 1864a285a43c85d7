"""fastopt."""

from __future__ import annotations

from itertools import count

import numpy as np

from bench import device, limit
from bench.case import Competitor
from bench.dropout import DropoutCase, P
from fastopt import functional as F

NAME = "fastopt"


def available() -> bool:
    return True


def make(case: DropoutCase) -> Competitor:
    x, dy = device.to_device(case, case.arrays())
    poison = np.full(case.shape, np.nan, case.numpy_dtype)
    (y,) = device.to_device(case, [poison])
    offsets = count()

    def forward():
        return F.dropout_forward(x, P, seed=1, offset=next(offsets), out=y)

    def competitor(run, arrays: list, source, target) -> Competitor:
        moved = device.copy(case.bytes) if case.device == "cuda" else lambda: limit.copy(source, target)
        return Competitor(run, lambda: device.to_host(arrays), moved, capture=device.capture)

    if case.what == "forward":
        return competitor(forward, [y], x, y)
    _, saved = forward()
    (dx,) = device.to_device(case, [poison.copy()])
    return competitor(lambda: F.dropout_backward(dy, saved, out=dx), [y, dx], dy, dx)
