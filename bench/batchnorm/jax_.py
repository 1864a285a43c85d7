"""JAX: the same formulas as NumPy, under ``jax.jit``."""

from __future__ import annotations

import numpy as np

from bench.batchnorm import EPS, MOMENTUM, BatchNormCase, _formulas
from bench.case import Competitor, installed
from bench.step import _jax

NAME = "JAX"


def available() -> bool:
    return installed("jax")


def make(case: BatchNormCase) -> Competitor | None:
    import jax

    if case.what == "block":
        return None
    xp, n = jax.numpy, case.elements // case.channels
    own, wide = case.numpy_dtype, case.param_dtype
    x, dy, gamma, beta = _jax.to_device(case, case.arrays())
    statistics = _jax.to_device(case, case.statistics())
    results: list = []

    @jax.jit
    def forward(x, statistics):
        y, mean, inv = _formulas.forward(xp, x.astype(wide), gamma, beta, case.others, case.spread, EPS)
        return [y.astype(own), *_formulas.running(mean, inv, *statistics, n, MOMENTUM, EPS)], mean, inv

    @jax.jit
    def evaluate(x, statistics):
        y = _formulas.evaluate(xp, x.astype(wide), gamma, beta, *statistics, case.spread, EPS)
        return [y.astype(own)]

    @jax.jit
    def backward(x, dy, mean, inv):
        dx, *rest = _formulas.backward(
            xp, x.astype(wide), dy.astype(wide), gamma, mean, inv, case.others, case.spread
        )
        return [dx.astype(own), *rest]

    _, *saved = forward(x, statistics)
    calls = {
        "forward": lambda: forward(x, statistics)[0],
        "evaluate": lambda: evaluate(x, statistics),
        "backward": lambda: backward(x, dy, *saved),
    }

    def run() -> None:
        results[:] = calls[case.what]()

    return Competitor(
        run, lambda: [np.asarray(a) for a in results], wait=lambda: jax.block_until_ready(results)
    )
