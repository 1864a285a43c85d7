"""What both ways of using CuPy share."""

from __future__ import annotations

from collections.abc import Callable

from bench.case import Contestant, installed
from bench.step import StepCase


def available() -> bool:
    if not installed("cupy"):
        return False
    import cupy

    return cupy.is_available()


def arrays(case: StepCase) -> tuple[list, list]:
    import cupy

    params, grads = case.arrays()
    return [cupy.asarray(p) for p in params], [cupy.asarray(g) for g in grads]


def contestant(step: Callable[[], object], params: list) -> Contestant:
    """A step is over when the device has done it."""
    import cupy

    def run() -> None:
        step()
        cupy.cuda.get_current_stream().synchronize()

    return Contestant(run, lambda: [cupy.asnumpy(p) for p in params])
