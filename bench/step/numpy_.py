"""NumPy, written in place as its users write it."""

from __future__ import annotations

import numpy as np

from bench.step import LR, MAX_NORM, SLOTS, Case, Contestant

NAME = "NumPy"


def available() -> bool:
    return True


def make(case: Case) -> Contestant:
    params, grads = case.arrays()
    state = [[np.zeros_like(p) for _ in range(SLOTS[case.rule])] for p in params]
    update = globals()[f"_{case.rule}"]
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        scale = 1.0
        if case.clip:
            norm = np.sqrt(sum(float(np.vdot(g, g)) for g in grads))
            scale = min(1.0, MAX_NORM / (norm + 1e-6))
        for p, g, s in zip(params, grads, state, strict=True):
            update(p, g * np.float32(scale) if case.clip else g, s, count)

    return Contestant(step, lambda: params)


def _sgd(p, g, s, t):
    p -= LR * g


def _momentum(p, g, s, t):
    (v,) = s
    v *= 0.9
    v += LR * g
    p -= v


def _nesterov(p, g, s, t):
    (v,) = s
    v *= 0.9
    v += LR * g
    p -= 0.9 * v + LR * g


def _adagrad(p, g, s, t):
    (total,) = s
    total += g * g
    p -= LR * g / (np.sqrt(total) + 1e-8)


def _rmsprop(p, g, s, t):
    (mean,) = s
    mean *= 0.9
    mean += 0.1 * g * g
    p -= LR * g / (np.sqrt(mean) + 1e-8)


def _adam(p, g, s, t):
    m, v = s
    m *= 0.9
    m += 0.1 * g
    v *= 0.999
    v += 0.001 * g * g
    p -= LR / (1 - 0.9**t) * m / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)


def _adamw(p, g, s, t):
    p *= 1 - LR * 1e-2
    _adam(p, g, s, t)
