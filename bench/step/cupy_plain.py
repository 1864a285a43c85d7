"""CuPy, in place as NumPy's users write it: the very lines of ``numpy_.py`` on arrays of its own."""

from __future__ import annotations

from bench.case import Contestant
from bench.step import StepCase, _cupy, numpy_

NAME = "CuPy"
available = _cupy.available


def make(case: StepCase) -> Contestant | None:
    if case.device != "cuda" or case.dtype == "bfloat16":
        return None
    params, grads = _cupy.arrays(case)
    return _cupy.contestant(numpy_.stepper(case, params, grads), params)
