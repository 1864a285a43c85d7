"""CuPy, written in place as with NumPy: the code of ``numpy_.py`` on CuPy arrays."""

from __future__ import annotations

from bench.case import Competitor
from bench.step import StepCase, _cupy, numpy_

NAME = "CuPy"
available = _cupy.available


def make(case: StepCase) -> Competitor | None:
    if case.device != "cuda" or case.dtype == "bfloat16":
        return None
    params, grads = _cupy.arrays(case)
    return _cupy.competitor(numpy_.stepper(case, params, grads), params)
