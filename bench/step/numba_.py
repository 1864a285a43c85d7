"""numba: a parallel loop over the elements, compiled once for each rule and dtype."""

from __future__ import annotations

from functools import cache

import numpy as np

from bench.case import Competitor, installed
from bench.step import NUMBERS, StepCase

NAME = "numba"


def available() -> bool:
    return installed("numba")


def make(case: StepCase) -> Competitor | None:
    if case.device != "cpu" or case.numpy_dtype.itemsize < 4 or case.clip:
        return None
    params, grads = case.arrays()
    typed = case.numpy_dtype.type
    arrays = [
        (p.reshape(-1), g.reshape(-1), *(np.zeros(p.size, p.dtype) for _ in range(case.states)))
        for p, g in zip(params, grads, strict=True)
    ]
    loop = _loops(typed)[case.rule]
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        corrections = (typed(1 - 0.9**count), typed(1 - 0.999**count)) if case.states == 2 else ()
        for own in arrays:
            loop(*own, *corrections)

    return Competitor(step, lambda: params)


@cache
def _loops(typed: type) -> dict:
    """Return the compiled loop of each rule. Every number has the type of the arrays, because a Python float
    would make the arithmetic float64."""
    import numba
    from numba import prange

    lr, kept, eps = (typed(NUMBERS[name]) for name in ("lr", "kept", "eps"))
    b1, a1, b2, a2 = (typed(NUMBERS[name]) for name in ("b1", "a1", "b2", "a2"))
    root = np.sqrt

    def sgd(p, g):
        for i in prange(p.size):
            p[i] -= lr * g[i]

    def momentum(p, g, s):
        for i in prange(p.size):
            s[i] = b1 * s[i] + lr * g[i]
            p[i] -= s[i]

    def nesterov(p, g, s):
        for i in prange(p.size):
            s[i] = b1 * s[i] + lr * g[i]
            p[i] -= b1 * s[i] + lr * g[i]

    def adagrad(p, g, s):
        for i in prange(p.size):
            s[i] += g[i] * g[i]
            p[i] -= lr * g[i] / (root(s[i]) + eps)

    def rmsprop(p, g, s):
        for i in prange(p.size):
            s[i] = b1 * s[i] + a1 * g[i] * g[i]
            p[i] -= lr * g[i] / (root(s[i]) + eps)

    def adam(p, g, m, v, c1, c2):
        for i in prange(p.size):
            m[i] = b1 * m[i] + a1 * g[i]
            v[i] = b2 * v[i] + a2 * g[i] * g[i]
            p[i] -= lr * m[i] / c1 / (root(v[i] / c2) + eps)

    def adamw(p, g, m, v, c1, c2):
        for i in prange(p.size):
            m[i] = b1 * m[i] + a1 * g[i]
            v[i] = b2 * v[i] + a2 * g[i] * g[i]
            p[i] = p[i] * kept - lr * m[i] / c1 / (root(v[i] / c2) + eps)

    compiled = numba.njit(parallel=True, error_model="numpy")
    return {f.__name__: compiled(f) for f in (sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw)}
