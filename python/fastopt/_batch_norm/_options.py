"""Checks of the options of a forward pass."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fastopt import _checks, _core
from fastopt._array_utils import Array


def forward_options(*options: Any) -> _core.BatchNormOptions:
    """Check options and return them for the kernels; cached for each combination."""
    try:
        return _checked_options(*options)
    except TypeError:  # perhaps of an unhashable value, which the call below names
        pass
    return _checked_options.__wrapped__(*options)


@lru_cache(maxsize=256, typed=True)
def _checked_options(
    training: bool,
    momentum: float | None,
    momentum_mode: str,
    eps: float,
    axis: int,
    unbiased: bool,
    single_value: str,
    activation: str | None,
) -> _core.BatchNormOptions:
    _checks.choice("momentum_mode", momentum_mode, ("update", "keep"))
    _checks.choice("single_value", single_value, ("error", "zero_var"))
    _checks.choice("activation", activation, (None, "relu"))
    old_weight = new_weight = None
    if momentum is not None:
        m = _checks.real("momentum", momentum, "[0, 1]")
        old_weight, new_weight = (1.0 - m, m) if momentum_mode == "update" else (m, 1.0 - m)
    return _core.BatchNormOptions(
        not _checks.boolean("training", training),
        old_weight,
        new_weight,
        _checks.boolean("unbiased", unbiased),
        single_value == "zero_var",
        _checks.real("eps", eps, "[0, inf)"),
        _checks.axis(axis),
        activation == "relu",
    )


def batch_index(
    batch: int | None, momentum: float | None, running_mean: Array | None, running_var: Array | None
) -> int:
    """Return the 1-based index of this batch; 1 if none is passed and the running statistics need none."""
    if (running_mean is None) != (running_var is None):
        raise ValueError("pass both running_mean and running_var, or neither")
    if batch is not None:
        return _checks.count("batch", batch, least=1)
    if momentum is None and running_mean is not None:
        raise ValueError(
            "momentum=None (cumulative average) requires batch=, the 1-based index of this batch"
        )
    return 1
