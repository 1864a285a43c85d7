"""What both ways of using CuPy share."""

from __future__ import annotations

from collections.abc import Callable

from bench import device
from bench.case import Contestant, installed
from bench.step import StepCase


def available() -> bool:
    if not installed("cupy"):
        return False
    import cupy

    return cupy.is_available()


def arrays(case: StepCase) -> tuple[list, list]:
    params, grads = case.arrays()
    return device.put(case, params), device.put(case, grads)


def contestant(step: Callable[[], object], params: list) -> Contestant:
    return Contestant(step, lambda: device.get(params))
