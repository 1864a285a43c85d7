"""numexpr: one multithreaded expression for each array that is written."""

from __future__ import annotations

import numpy as np

from bench.case import Competitor, installed
from bench.step import NUMBERS, RULES, StepCase

NAME = "numexpr"

# By rule: the array that is written, and the expression. A literal 0.9 would make a float32 expression
# float64, so numbers have names, too; c1 and c2 are Adam's bias corrections.
_VELOCITY = ("velocity", "b1 * velocity + lr * g")
_ADAM = [
    ("m", "b1 * m + a1 * g"),
    ("v", "b2 * v + a2 * g * g"),
    ("p", "p * kept - lr * m / c1 / (sqrt(v / c2) + eps)"),
]
EXPRESSIONS = {
    "sgd": [("p", "p - lr * g")],
    "momentum": [_VELOCITY, ("p", "p - velocity")],
    "nesterov": [_VELOCITY, ("p", "p - (b1 * velocity + lr * g)")],
    "adagrad": [("sum_sq", "sum_sq + g * g"), ("p", "p - lr * g / (sqrt(sum_sq) + eps)")],
    "rmsprop": [
        ("mean_sq", "b1 * mean_sq + a1 * g * g"),
        ("p", "p - lr * g / (sqrt(mean_sq) + eps)"),
    ],
    "adam": [*_ADAM[:2], ("p", _ADAM[2][1].replace("p * kept", "p"))],
    "adamw": _ADAM,
}


def available() -> bool:
    return installed("numexpr")


def make(case: StepCase) -> Competitor | None:
    import numexpr

    if case.device != "cpu" or case.numpy_dtype.itemsize < 4 or case.clip:
        return None
    params, grads = case.arrays()
    typed = case.numpy_dtype.type
    numbers = {name: typed(value) for name, value in NUMBERS.items()}
    states = RULES[case.rule].states
    owned = [
        {"p": p, "g": g, **{name: np.zeros_like(p) for name in states}, **numbers}
        for p, g in zip(params, grads, strict=True)
    ]
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        for names in owned:
            names.update(c1=typed(1 - 0.9**count), c2=typed(1 - 0.999**count))
            for target, expression in EXPRESSIONS[case.rule]:
                numexpr.evaluate(expression, names, {}, out=names[target])

    return Competitor(step, lambda: params)
