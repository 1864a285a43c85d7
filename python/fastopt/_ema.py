"""A moving average of the weights, which often generalizes better than the weights of the last step."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from fastopt import _checks, _state_dict
from fastopt._array_api import check_floating, copy_array
from fastopt._array_utils import Array, compute_dtype_name, is_mutable
from fastopt._param_copies import (
    check_compatible,
    labeled,
    match_order,
    read_params,
    refresh,
    write_params,
)
from fastopt._params import Params


class EMA:
    r"""An exponential moving average of parameters.

    .. math:: a \leftarrow d\, a + (1 - d)\, \theta

    It starts at the current parameters and is computed as :math:`a + (1 - d)(\theta - a)`.

    Args:
        params: the parameters to average, in any form accepted by an optimizer; floating point;
            :meth:`update` only reads them.
        decay: the decay rate :math:`d` in [0, 1). The average covers about :math:`1 / (1 - d)` updates.
        warmup: use :math:`\min(d, (1 + t) / (10 + t))` at update :math:`t`, counted from 1, so that the start
            is forgotten sooner (TensorFlow's ``num_updates``).

    ``average`` is a plain attribute, a list of arrays in the order of the parameters: float64 for float64
    parameters, float32 for all others, because 16 bits would lose the small changes. ``updates`` is the number
    of updates. ``decay`` can be set.

    >>> import numpy as np, fastopt
    >>> w = np.array([0.0])
    >>> ema = fastopt.EMA(w, decay=0.75)
    >>> for w[:] in (4.0, 4.0):  # w after each step
    ...     ema.update()
    >>> ema.average
    [array([1.75])]
    >>> with ema.applied():
    ...     w.item()
    1.75
    >>> w.item()
    4.0

    Conventions: TensorFlow's ``ExponentialMovingAverage``, torch's ``get_ema_multi_avg_fn``. optax's
    ``ema`` starts at 0 and corrects for that bias instead. Source: Polyak & Juditsky 1992,
    doi:10.1137/0330046.
    """

    average: list[Array]

    def __init__(self, params: Any, decay: float = 0.999, *, warmup: bool = False) -> None:
        self._params = Params.parse(params)
        current = labeled(refresh(self._params))
        for name, param in current:
            check_floating(name, param)
        self.decay = decay
        self.warmup = _checks.boolean("warmup", warmup)
        self.average = [copy_array(param, compute_dtype_name(param)) for _, param in current]
        for (name, _), average in zip(current, self.average, strict=True):
            _require_mutable(name, average)
        self.updates = 0

    @property
    def decay(self) -> float:
        """The decay rate."""
        return self._decay

    @decay.setter
    def decay(self, value: float) -> None:
        self._decay = _checks.real("decay", value, "[0, 1)")

    def update(self) -> None:
        """Add the current parameters to the average; call it after each step. Raises ``ValueError`` or
        ``TypeError`` if a parameter no longer fits its average; no average is changed then."""
        current = labeled(refresh(self._params))
        check_compatible(current, self.average)
        for (name, param), average in zip(current, self.average, strict=True):
            _check_device(name, param, average)
        updates, decay = self.updates + 1, self.decay
        if self.warmup:
            decay = min(decay, (1 + updates) / (10 + updates))
        with np.errstate(all="ignore"):
            for (_, param), average in zip(current, self.average, strict=True):
                average += (param - average) * (1.0 - decay)
        self.updates = updates

    def copy_to(self, params: Any = None) -> None:
        """Write the averages into ``params`` (by default the averaged parameters), in place, rounded to their
        dtypes and matched by name where they have names. Raises ``ValueError`` or ``TypeError`` if the names
        differ, or if an array does not fit or cannot be written to; nothing is changed then."""
        if params is None:
            targets = labeled(refresh(self._params))
        else:
            targets = match_order(read_params(params), replace(self._params, arrays=self.average))
        write_params(targets, self.average)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Replace the parameters by their averages within a ``with`` block, and restore them after it."""
        before = [copy_array(param) for param in refresh(self._params).arrays]
        self.copy_to()
        try:
            yield
        finally:
            write_params(labeled(refresh(self._params)), before)

    def state_dict(self) -> dict[str, Any]:
        """Return copies of the averages, their names (``None`` for a list) and the number of updates."""
        return {**self._identity(), "updates": self.updates, "average": copy.deepcopy(self.average)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state returned by :meth:`state_dict`. Raises ``ValueError`` or ``TypeError`` if it does not
        fit, or if its names or their order differ; nothing is changed then."""
        _state_dict.check_identity(state, self._identity())
        _state_dict.check_keys(state, ("updates", "average"))
        updates = _checks.count("updates", state["updates"])
        role = "state_dict's average"
        average = _state_dict.read_arrays(state, "average")
        check_compatible([(f"{role}[{i}]", a) for i, a in enumerate(average)], self.average, role)
        write_params(labeled(Params(self.average, "list")), average)
        self.updates = updates

    def _identity(self) -> dict[str, Any]:
        """Return the entries that must be equal in a state to load."""
        return {"names": self._params.names}

    def __repr__(self) -> str:
        return f"EMA({len(self.average)} arrays, decay={self.decay}, warmup={self.warmup})"


def _require_mutable(name: str, average: Array) -> None:
    """Reject arrays that cannot change in place: the updates replace them by new arrays, which the average
    would never read."""
    if not is_mutable(average):
        kind = type(average).__name__
        raise TypeError(f"{name} has type {kind}, expected an array that can change in place")


def _check_device(name: str, param: Array, average: Array) -> None:
    found, expected = (getattr(array, "device", None) for array in (param, average))
    if found != expected:
        raise ValueError(f"{name} is on device {found}, but its average is on {expected}")
