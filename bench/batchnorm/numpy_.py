"""NumPy, as its users write it; 16-bit activations are converted to float32 for the computation."""

from __future__ import annotations

import numpy as np

from bench.batchnorm import EPS, MOMENTUM, BatchNormCase, _formulas
from bench.case import Competitor

NAME = "NumPy"


def available() -> bool:
    return True


def make(case: BatchNormCase) -> Competitor | None:
    if case.device != "cpu" or case.what == "block":
        return None
    x, dy, gamma, beta = case.arrays()
    wide, own, n = case.param_dtype, case.numpy_dtype, case.elements // case.channels
    statistics = case.statistics()
    results: list[np.ndarray] = []

    def forward() -> tuple[np.ndarray, np.ndarray]:
        y, mean, inv = _formulas.forward(
            np, x.astype(wide, copy=False), gamma, beta, case.others, case.spread, EPS
        )
        after = _formulas.running(mean, inv, *statistics, n, MOMENTUM, EPS)
        results[:] = [y.astype(own, copy=False), *after]
        return mean, inv

    def evaluate() -> None:
        y = _formulas.evaluate(
            np, x.astype(wide, copy=False), gamma, beta, *statistics, case.spread, EPS
        )
        results[:] = [y.astype(own, copy=False)]

    def backward() -> None:
        wide_x, wide_dy = x.astype(wide, copy=False), dy.astype(wide, copy=False)
        dx, *rest = _formulas.backward(np, wide_x, wide_dy, gamma, mean, inv, case.others, case.spread)
        results[:] = [dx.astype(own, copy=False), *rest]

    if case.what == "backward":
        mean, inv = forward()
    run = {"forward": forward, "evaluate": evaluate, "backward": backward}[case.what]
    return Competitor(run, lambda: results)
