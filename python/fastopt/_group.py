"""A group of parameters: what it sets for itself, and what it leaves to its optimizer."""

from __future__ import annotations

from typing import Any

from fastopt._array_utils import Array
from fastopt._hyperparams import BETAS, Shared, refuse_to_set, take_up


class Group(Shared):
    """A stretch of the parameters with hyper-parameters of its own.

    What it does not set itself is the optimizer's: ``opt.groups[1].lr = 0.1`` lets the second group part
    from ``opt.lr``.
    """

    _opt: Any  # an Optimizer, whose module imports this one
    _own: dict[str, Any]
    _part: slice  # of the optimizer's list of parameters

    def __init__(self, opt: Any, own: dict[str, Any], part: slice) -> None:
        self.__dict__.update(_opt=opt, _part=part, _own=opt._checked_own(own))

    @property
    def params(self) -> list[Array]:
        """The group's parameters, as a flat list."""
        arrays: list[Array] = self._opt._layout.arrays[self._part]
        return arrays

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copy asks before there is an _opt
            raise AttributeError(name)
        for values in (self._own, self._opt._hyper):
            if name in values:
                return values[name]
        if name == BETAS and "beta1" in self._opt._hyper:
            return (self.beta1, self.beta2)
        raise AttributeError(f"a group of {type(self._opt).__name__} has no attribute '{name}'")

    def __dir__(self) -> list[str]:
        betas = [BETAS] if self._opt._is_hyper(BETAS) else []
        return [*super().__dir__(), *self._opt._hyper, *betas]

    def __setattr__(self, name: str, value: Any) -> None:
        if not self._opt._is_hyper(name) and name not in self._opt._constants:
            refuse_to_set(f"a group of {type(self._opt).__name__}", self, name)
        take_up(self._own, self._opt._checked_own({name: value}), self._opt._hyper_changed)

    def __repr__(self) -> str:
        return f"Group({', '.join(f'{k}={v!r}' for k, v in self._own.items())})"
