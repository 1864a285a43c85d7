"""Validation and conversion of hyper-parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, NoReturn

from fastopt import _checks, _core

BETAS = "betas"


class HyperParams:
    """The hyper-parameters of every optimizer and every group."""

    lr: float
    l1: float
    l2: float
    weight_decay: float
    l1_mode: Literal["subgradient", "proximal"]
    decay_order: Literal["before", "after"]
    decay_scale: Literal["lr", "none"]
    maximize: bool
    grad_scale: float
    clip_value: float | None
    clip_norm: float | None
    clip_eps: float
    clip_scope: Literal["global", "tensor"]
    clip_norm_type: float | Literal["2", "1", "max"]
    on_nonfinite: Literal["propagate", "skip", "raise"]


def with_betas(names: Iterable[str]) -> list[str]:
    """Return the names of hyper-parameters, with ``betas`` added if ``beta1`` is among them."""
    names = list(names)
    return [*names, BETAS] if "beta1" in names else names


def expand_betas(values: dict[str, Any]) -> dict[str, Any]:
    """Replace ``betas=(b1, b2)`` by ``beta1`` and ``beta2``."""
    values = dict(values)  # a copy: reading a number may run code that changes the caller's dict
    if BETAS not in values:
        return values
    betas = values.pop(BETAS)
    if "beta1" in values or "beta2" in values:
        raise TypeError("pass either betas or beta1 and beta2, not both")
    values["beta1"], values["beta2"] = _checks.pair(BETAS, betas)
    return values


def validate(rule: str, values: dict[str, Any]) -> dict[str, Any]:
    """Validate hyper-parameters and return them as built-in Python values."""
    values = expand_betas(values)
    _core.check_hyper(rule, values)
    return {name: _checks.builtin(value) for name, value in values.items()}


def update_or_rollback(
    values: dict[str, Any], new: dict[str, Any], on_change: Callable[[], None]
) -> None:
    """Update ``values`` with ``new`` and call ``on_change``, which may notify a device. If that raises, restore
    ``values``."""
    before = dict(values)
    values.update(new)
    try:
        on_change()
    except BaseException:
        for name in new.keys() - before.keys():
            del values[name]
        values.update(before)
        raise


_HINTS = {
    "params": "; create another optimizer for other parameters",
    "groups": "; set an attribute of one of them, as in opt.groups[0].lr = 0.1",
}


def raise_not_settable(owner: str, obj: object, name: str) -> NoReturn:
    """Raise the ``AttributeError`` for an attribute that does not exist or cannot be set."""
    if hasattr(obj, name):
        raise AttributeError(f"{name} of {owner} cannot be set{_HINTS.get(name, '')}")
    raise AttributeError(f"{owner} has no attribute '{name}', and no attributes can be added")


def check_group_options(owner: str, rule: str, values: dict[str, Any], fixed: Iterable[str]) -> None:
    """Check that a group may set the hyper-parameters in ``values``."""
    for name in values:
        if name in (*_core.LIST_HYPER, *fixed):
            raise TypeError(f"{name} is set for the whole optimizer and cannot differ between groups")
    valid = [*with_betas(_core.RULES[rule]["hyper"]), *_core.RUN_HYPER]
    _checks.option_names(f"a group of {owner}", values, valid)
