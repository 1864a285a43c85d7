"""fastopt."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench import device, limit
from bench.batchnorm import EPS, MOMENTUM, BatchNormCase
from bench.case import Competitor
from fastopt import functional as F

NAME = "fastopt"


def available() -> bool:
    return True


def make(case: BatchNormCase) -> Competitor:
    x, dy, gamma, beta = device.to_device(case, case.arrays())
    mean, var = device.to_device(case, case.statistics())
    (out,) = device.to_device(case, [np.full(case.shape, np.nan, case.numpy_dtype)])
    (residual,) = device.to_device(case, [case.residual()]) if case.what == "block" else (None,)
    results: list = []

    def forward(**more):
        return F.batch_norm_forward(
            x, gamma, beta, mean, var, momentum=MOMENTUM, eps=EPS, axis=case.axis, **more
        )

    def block() -> None:
        y, saved = forward(residual=residual, activation="relu")
        results[:] = [y, *F.batch_norm_backward(dy, saved)]

    def backward() -> None:
        results[:] = F.batch_norm_backward(dy, saved, out=out)

    if case.what == "backward":
        _, saved = forward(out=out)
    elif case.what != "block":
        results = [out, mean, var] if case.what == "forward" else [out]
    run = {
        "forward": lambda: forward(out=out),
        "evaluate": lambda: forward(out=out, training=False),
        "backward": backward,
        "block": block,
    }[case.what]
    moved = (
        device.copy(case.bytes) if case.device == "cuda" else _moved(case.what, x, dy, out, residual)
    )
    return Competitor(run, lambda: device.to_host(results), moved, capture=device.capture)


def _moved(what: str, x, dy, out, residual) -> Callable[[], object]:
    """Return the limit: a read of what the sums read, then a copy."""

    def block() -> None:  # without writing dresidual, because no fastopt kernel only writes
        limit.read(x)
        limit.copy(x, out, residual=residual)
        limit.read(x, dy)
        limit.copy(x, out, residual=dy)

    return {
        "forward": lambda: (limit.read(x), limit.copy(x, out)),
        "evaluate": lambda: limit.copy(x, out),
        "backward": lambda: (limit.read(x, dy), limit.copy(x, out, residual=dy)),
        "block": block,
    }[what]
