"""A group of parameters with hyper-parameters that override those of its optimizer."""

from __future__ import annotations

from typing import Any

from fastopt._array_utils import Array
from fastopt._hyperparams import BETAS, HyperParams, raise_not_settable, update_or_rollback, with_betas


class Group(HyperParams):
    """A group of parameters that can override hyper-parameters of its optimizer.

    Every other hyper-parameter is the optimizer's. After ``opt.groups[1].lr = 0.1`` the second group no longer
    follows ``opt.lr``.
    """

    _opt: Any  # an Optimizer, whose module imports this one
    _overrides: dict[str, Any]
    _slice: slice  # of the optimizer's list of parameters

    def __init__(self, opt: Any, overrides: dict[str, Any], indices: slice) -> None:
        self._opt, self._slice, self._overrides = opt, indices, opt._validate_overrides(overrides)

    @property
    def params(self) -> list[Array]:
        """The group's parameters, as a flat list."""
        arrays: list[Array] = self._opt._params.arrays[self._slice]
        return arrays

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pickle looks up private names on an empty object
            raise AttributeError(name)
        for values in (self._overrides, self._opt._hyperparams):
            if name in values:
                return values[name]
        if name == BETAS and "beta1" in self._opt._hyperparams:
            return (self.beta1, self.beta2)
        raise AttributeError(f"a group of {type(self._opt).__name__} has no attribute '{name}'")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *with_betas(self._opt._hyperparams)]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in Group.__annotations__:
            object.__setattr__(self, name, value)
        elif name in with_betas(self._opt._hyperparams) or name in self._opt._constants:
            new = self._opt._validate_overrides({name: value})
            update_or_rollback(self._overrides, new, self._opt._hyperparams_changed)
        else:
            raise_not_settable(f"a group of {type(self._opt).__name__}", self, name)

    def __repr__(self) -> str:
        return f"Group({', '.join(f'{k}={v!r}' for k, v in self._overrides.items())})"
