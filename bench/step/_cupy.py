"""Helpers shared by both ways of using CuPy."""

from __future__ import annotations

from collections.abc import Callable

from bench import device
from bench.case import Competitor, installed
from bench.step import StepCase


def available() -> bool:
    if not installed("cupy"):
        return False
    import cupy

    return cupy.is_available()


def arrays(case: StepCase) -> tuple[list, list]:
    params, grads = case.arrays()
    return device.to_device(case, params), device.to_device(case, grads)


def competitor(step: Callable[[], object], params: list) -> Competitor:
    return Competitor(step, lambda: device.to_host(params))
