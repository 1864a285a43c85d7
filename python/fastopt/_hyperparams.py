"""Hyper-parameters as users give them, checked, and made what an optimizer keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, NoReturn

from fastopt import _checks, _core

BETAS = "betas"


class Shared:
    """The attributes that every optimizer has, and every group, whatever the rule."""

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


def spelled_out(values: dict[str, Any]) -> dict[str, Any]:
    """``betas=(b1, b2)`` as ``beta1`` and ``beta2``."""
    values = dict(values)  # a number's own code may change the caller's
    if BETAS not in values:
        return values
    betas = values.pop(BETAS)
    if "beta1" in values or "beta2" in values:
        raise TypeError("betas are beta1 and beta2: give one or the other")
    values["beta1"], values["beta2"] = _checks.pair(BETAS, betas)
    return values


def checked(rule: str, values: dict[str, Any]) -> dict[str, Any]:
    """What to keep of them."""
    values = spelled_out(values)
    _core.check_hyper(rule, values)
    return {name: _checks.builtin(value) for name, value in values.items()}


def take_up(kept: dict[str, Any], values: dict[str, Any], tell: Callable[[], None]) -> None:
    """Add values, unless a device that is told of them cannot be told: then all is as before."""
    before = dict(kept)
    kept.update(values)
    try:
        tell()
    except BaseException:
        for name in values.keys() - before.keys():
            del kept[name]
        kept.update(before)
        raise


_INSTEAD = {
    "params": ": make another optimizer for other parameters",
    "groups": ": set an attribute of one of them, as in opt.groups[0].lr = 0.1",
}


def refuse_to_set(owner: str, obj: object, name: str) -> NoReturn:
    """It is no attribute, or none to be set."""
    if hasattr(obj, name):
        raise AttributeError(f"{name} of {owner} cannot be set{_INSTEAD.get(name, '')}")
    raise AttributeError(f"{owner} has no attribute '{name}'")


def check_own(owner: str, rule: str, values: dict[str, Any], fixed: Iterable[str]) -> None:
    """A group may have values of these names."""
    for name in values:
        if name in (*_core.LIST_HYPER, *fixed):
            raise TypeError(f"{name} belongs to the whole optimizer, not to one of its groups")
    hyper = _core.RULES[rule]["hyper"]
    betas = [BETAS] if "beta1" in hyper else []
    _checks.option_names(f"a group of {owner}", values, [*hyper, *betas, *_core.RUN_HYPER])
