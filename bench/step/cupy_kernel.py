"""CuPy's ``ElementwiseKernel``: one kernel for each rule, launched for every array."""

from __future__ import annotations

from bench.case import Competitor
from bench.step import NUMBERS, RULES, StepCase, _cupy

NAME = "CuPy kernel"
available = _cupy.available

# By rule, in CUDA C++; T is the type of the arrays.
_VELOCITY = "velocity = b1 * velocity + lr * g;"
_ADAM = "m = b1 * m + a1 * g; v = b2 * v + a2 * g * g; p -= lr * m / c1 / (sqrt(v / c2) + eps);"
KERNELS = {
    "sgd": "p -= lr * g;",
    "momentum": f"{_VELOCITY} p -= velocity;",
    "nesterov": f"{_VELOCITY} p -= b1 * velocity + lr * g;",
    "adagrad": "sum_sq += g * g; p -= lr * g / (sqrt(sum_sq) + eps);",
    "rmsprop": "mean_sq = b1 * mean_sq + a1 * g * g; p -= lr * g / (sqrt(mean_sq) + eps);",
    "adam": _ADAM,
    "adamw": f"p *= kept; {_ADAM}",
}


def make(case: StepCase) -> Competitor | None:
    if case.device != "cuda" or case.numpy_dtype.itemsize < 4 or case.clip:
        return None
    import cupy

    params, grads = _cupy.arrays(case)
    states = RULES[case.rule].states
    owned = [[p, *(cupy.zeros_like(p) for _ in states)] for p in params]
    kernel = cupy.ElementwiseKernel(
        "T g, T c1, T c2",
        ", ".join(f"T {name}" for name in ("p", *states)),
        "".join(f"const T {n} = {value!r};" for n, value in NUMBERS.items()) + KERNELS[case.rule],
        f"bench_{case.rule}",
    )
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        for g, own in zip(grads, owned, strict=True):
            kernel(g, 1 - 0.9**count, 1 - 0.999**count, *own)

    return _cupy.competitor(step, params)
