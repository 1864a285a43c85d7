"""The average of the weights along a run, which often generalises better than where the run ends."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from fastopt import _checks, _state_dict
from fastopt._array_api import check_floating, copy_array
from fastopt._array_utils import Array, compute_dtype_name, is_mutable
from fastopt._param_copies import check_compatible, match_order, read_params, write_params
from fastopt._params import Params


class EMA:
    r"""An exponential moving average of parameters.

    .. math:: a \leftarrow d\, a + (1 - d)\, \theta

    It starts from the parameters as they are, and is computed as :math:`a + (1 - d)(\theta - a)`.

    Args:
        params: what to follow, in any form that an optimizer takes; floating point, only read by
            :meth:`update`.
        decay: :math:`d`, from 0 up to but not 1; :math:`1 / (1 - d)` steps are what it remembers.
        warmup: :math:`\min(d, (1 + t) / (10 + t))` at update :math:`t`, from 1, lets the start be forgotten
            sooner (TensorFlow's ``num_updates``).

    ``average`` is a plain attribute, a list of arrays in the order of the parameters: float64 for float64,
    float32 for all else, as 16 bits would lose the small changes. ``updates`` counts.

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
    ``ema`` starts from 0 and is corrected for it instead. Source: Polyak & Juditsky 1992, doi:10.1137/0330046.
    """

    average: list[Array]

    def __init__(self, params: Any, decay: float = 0.999, *, warmup: bool = False) -> None:
        self._params = read_params(params)
        for i, param in enumerate(self._params.arrays):
            check_floating(self._params.label("params", i), param)
        self.decay = _checks.real("decay", decay, "[0, 1)")
        self.warmup = _checks.boolean("warmup", warmup)
        self.average = [copy_array(a, compute_dtype_name(a)) for a in self._params.arrays]
        for i, average in enumerate(self.average):
            _require_mutable(self._params.label("params", i), average)
        self.updates = 0

    def update(self) -> None:
        """Take in the parameters as they are now: after each step."""
        self.updates += 1
        decay = self.decay
        if self.warmup:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        for average, param in zip(self.average, self._params.arrays, strict=True):
            average += (param - average) * (1.0 - decay)

    def copy_to(self, params: Any = None) -> None:
        """Write the averages into ``params``, by default those that are followed, rounded to their dtype; where
        they have names, by name. ``ValueError`` or ``TypeError`` if the names are others, or if one does not
        fit or cannot be written to; nothing is changed then."""
        averages = replace(self._params, arrays=self.average)
        targets = self._params.arrays if params is None else match_order(read_params(params), averages)
        write_params(targets, averages)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within a ``with`` block the parameters are the averages; after it they are what they were."""
        before = replace(self._params, arrays=[copy_array(param) for param in self._params.arrays])
        self.copy_to()
        try:
            yield
        finally:
            write_params(self._params.arrays, before)

    def state_dict(self) -> dict[str, Any]:
        """The averages (copied), their names (``None`` in a list) and their count."""
        return {**self._identity(), "updates": self.updates, "average": copy.deepcopy(self.average)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was called. ``ValueError`` or ``TypeError`` for another's state, one
        with other names or in another order, or for what is none; nothing is changed then."""
        _state_dict.check_identity(state, self._identity())
        _state_dict.check_keys(state, ("updates", "average"))
        updates = _checks.count("updates", state["updates"])
        average = _state_dict.read_arrays(state, "average")
        check_compatible(average, Params(self.average, "list"), "state_dict's average")
        write_params(self.average, Params(average, "list"))
        self.updates = updates

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must agree in with the average that loads it."""
        return {"names": self._params.names}

    def __repr__(self) -> str:
        return f"EMA({len(self.average)} arrays, decay={self.decay}, warmup={self.warmup})"


def _require_mutable(name: str, average: Array) -> None:
    """Of a library whose arrays can change: of a parameter that is replaced nothing new would be seen."""
    if not is_mutable(average):
        kind = type(average).__name__
        raise TypeError(f"{name} has type {kind}, expected an array that can change in place")
