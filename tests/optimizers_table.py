"""A table of all optimizers, each with its class and its function; and the bits of arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import ml_dtypes
import numpy as np

import fastopt
from fastopt import _core
from fastopt import functional as F

DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}


@dataclass(frozen=True)
class Case:
    """A rule: its class, and the function that computes the same step."""

    rule: str
    cls: Callable[..., fastopt.Optimizer]
    function: Callable[..., bool]
    options: dict[str, Any] = field(default_factory=dict)  # those that select the rule

    @property
    def states(self) -> list[str]:
        return _core.RULES[self.rule]["states"]

    def make(self, params: Any, **hyper: Any) -> fastopt.Optimizer:
        return self.cls(params, **{"lr": 0.1, **self.options, **hyper})

    def call(self, param: Any, grad: Any, states: dict[str, Any], **hyper: Any) -> bool:
        options = {k: v for k, v in self.options.items() if k not in ("centered", "amsgrad")}
        if "step" in signature(self.function).parameters:
            options["step"] = 1
        return self.function(param, grad, **states, **{"lr": 0.1, **options, **hyper})


_MOMENTUM = {"momentum": 0.9}
CASES = {
    case.rule: case
    for case in (
        Case("sgd", fastopt.SGD, F.sgd_step),
        Case("momentum", fastopt.Momentum, F.momentum_step),
        Case("nesterov", fastopt.Nesterov, F.nesterov_step, {"form": "applied"}),
        Case("adagrad", fastopt.AdaGrad, F.adagrad_step),
        Case("rmsprop", fastopt.RMSprop, F.rmsprop_step),
        Case("rmsprop_momentum", fastopt.RMSprop, F.rmsprop_step, _MOMENTUM),
        Case("rmsprop_centered", fastopt.RMSprop, F.rmsprop_step, {"centered": True}),
        Case(
            "rmsprop_centered_momentum",
            fastopt.RMSprop,
            F.rmsprop_step,
            {"centered": True, **_MOMENTUM},
        ),
        Case("adam", fastopt.Adam, F.adam_step),
        Case("adam_amsgrad", fastopt.Adam, F.adam_step, {"amsgrad": True}),
    )
}


def values(shape: Any, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    """Normally distributed numbers in C order."""
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def bits(array: Any) -> tuple[Any, ...]:
    """A value that is equal for bitwise identical arrays, including NaN and the sign of zero."""
    if isinstance(array, np.ndarray):
        return (array.shape, array.dtype.str, array.dtype.name, array.tobytes())
    if type(array).__module__.partition(".")[0] == "torch":
        import torch

        as_int = {2: torch.int16, 4: torch.int32, 8: torch.int64}[array.element_size()]
        return (tuple(array.shape), str(array.dtype), array.view(as_int).numpy().tobytes())
    return bits(np.asarray(array))


def all_bits(arrays: Any) -> list[tuple[Any, ...]]:
    return [bits(a) for a in arrays]


def state_bits(opt: fastopt.Optimizer) -> dict[str, Any]:
    """The bits of everything that a step changes except the parameters."""
    states = _core.RULES[opt.state_dict()["rule"]]["states"]
    return {name: all_bits(getattr(opt, name)) for name in states} | {
        "step_count": opt.step_count,
        "skipped_steps": opt.skipped_steps,
    }
