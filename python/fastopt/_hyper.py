"""Hyper-parameters as users give them, checked, and made what an optimizer keeps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastopt import _checks, _core

BETAS = "betas"


def spelled_out(values: dict[str, Any]) -> dict[str, Any]:
    """``betas=(b1, b2)`` as ``beta1`` and ``beta2``."""
    values = dict(values)
    if BETAS in values:
        betas = values.pop(BETAS)
        if "beta1" in values or "beta2" in values:
            raise TypeError("betas are beta1 and beta2: give one or the other")
        try:
            values["beta1"], values["beta2"] = betas
        except (TypeError, ValueError):
            raise ValueError(f"betas must be two numbers, got {betas!r}") from None
    return values


def checked(rule: str, values: dict[str, Any]) -> dict[str, Any]:
    """What to keep of them."""
    values = spelled_out(values)
    _core.check_hyper(rule, values)
    return {name: _checks.plain(value) for name, value in values.items()}


def check_own(owner: str, rule: str, values: dict[str, Any], fixed: Iterable[str]) -> None:
    """A group may have values of these names."""
    for name in values:
        if name in (*_core.WHOLE, *fixed, "state_dtype"):
            raise TypeError(f"{name} belongs to the whole optimizer, not to one of its groups")
    hyper = _core.RULES[rule]["hyper"]
    betas = [BETAS] if "beta1" in hyper else []
    _checks.options(f"a group of {owner}", values, [*hyper, *betas, *_core.AROUND])
