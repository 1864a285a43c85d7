"""NumPy, written in place as its users write it."""

from __future__ import annotations

import numpy as np

from bench.case import Competitor
from bench.step import LR, WEIGHT_DECAY, StepCase

NAME = "NumPy"


def available() -> bool:
    return True


def make(case: StepCase) -> Competitor | None:
    if case.device != "cpu":
        return None
    params, grads = case.arrays()
    return Competitor(stepper(case, params, grads), lambda: params)


def stepper(case: StepCase, params: list, grads: list):
    """Return a step on arrays of NumPy, or of any library with the same interface."""
    state = [[np.zeros_like(p) for _ in range(case.states)] for p in params]
    update = UPDATES[case.rule]
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        clipped = _clipped(grads, case.max_norm) if case.clip else grads
        for p, g, s in zip(params, clipped, state, strict=True):
            update(p, g, s, count)

    return step


def _clipped(grads: list, max_norm: float) -> list:
    # At least in float32: the sum of the squares of a million float16 numbers overflows.
    wide = [g if g.dtype.itemsize > 2 else g.astype(np.float32) for g in grads]
    norm = float(sum(np.vdot(g, g) for g in wide)) ** 0.5
    scale = min(1.0, max_norm / (norm + 1e-6))
    return [g * scale for g in grads]


def sgd(p, g, s, t):
    p -= LR * g


def momentum(p, g, s, t):
    (v,) = s
    v *= 0.9
    v += LR * g
    p -= v


def nesterov(p, g, s, t):
    (v,) = s
    v *= 0.9
    v += LR * g
    p -= 0.9 * v + LR * g


def adagrad(p, g, s, t):
    (total,) = s
    total += g * g
    p -= LR * g / (np.sqrt(total) + 1e-8)


def rmsprop(p, g, s, t):
    (mean,) = s
    mean *= 0.9
    mean += 0.1 * g * g
    p -= LR * g / (np.sqrt(mean) + 1e-8)


def adam(p, g, s, t):
    m, v = s
    m *= 0.9
    m += 0.1 * g
    v *= 0.999
    v += 0.001 * g * g
    p -= LR / (1 - 0.9**t) * m / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)


def adamw(p, g, s, t):
    p *= 1 - LR * WEIGHT_DECAY
    adam(p, g, s, t)


UPDATES = {f.__name__: f for f in (sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw)}
