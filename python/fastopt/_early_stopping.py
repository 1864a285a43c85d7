"""Early stopping: training ends when the validation error no longer falls, with the parameters that were
best."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from fastopt import _checks, _state_dict
from fastopt._array_api import copy_array
from fastopt._metric_monitor import MetricMonitor
from fastopt._param_copies import check_compatible, match_order, read_params, write_params
from fastopt._params import Params


class EarlyStopping:
    r"""Watches a value, says when to stop, and keeps the best parameters.

    An improvement is a value below :math:`\text{best} - \mathtt{min\_delta}` (``mode="min"``), or above
    :math:`\text{best} + \mathtt{min\_delta}` (``"max"``); NaN is none. After ``patience`` updates in a row
    without one, it is time to stop.

    Args:
        patience: 1 or more; usually in epochs.
        min_delta: 0 or more.
        mode: ``"min"`` for an error, ``"max"`` for an accuracy.

    ``best`` is the best value, ``best_update`` its number, from 1 (0: none yet), ``waited`` the updates
    since, and ``stopped`` says whether it is time to stop.

    >>> import numpy as np, fastopt
    >>> w = np.zeros(1)
    >>> stopper = fastopt.EarlyStopping(patience=2)
    >>> for error in (3.0, 1.0, 2.0, 1.5, 0.5):
    ...     w[:] = error  # where training and validation stand
    ...     if stopper.update(error, w):
    ...         break
    >>> stopper.restore(w)
    >>> stopper.best_update, w
    (2, array([1.]))

    Conventions: Keras's ``EarlyStopping`` with ``restore_best_weights=True``. Source: Goodfellow, Bengio &
    Courville 2016, Algorithm 7.1.
    """

    def __init__(
        self, patience: int = 10, min_delta: float = 0.0, mode: Literal["min", "max"] = "min"
    ) -> None:
        self._monitor = MetricMonitor(patience, min_delta, mode)
        self._best_params = Params([], "list")
        self.updates = self.best_update = 0

    @property
    def best(self) -> float:
        """The best value so far; an infinity before there is one."""
        return self._monitor.best

    @property
    def waited(self) -> int:
        """Updates since the best one."""
        return self._monitor.waited

    @property
    def stopped(self) -> bool:
        """Whether ``patience`` is at an end."""
        return self._monitor.out_of_patience

    def update(self, value: float, params: Any) -> bool:
        """Look at a new value, and copy the parameters if it is the best.

        Args:
            value: the validation error, a number; an array without axes may hold it.
            params: in any form that an optimizer takes; only read, the same arrays each time, those with names
                in any order. To restore BatchNorm's running statistics as well, give them along.

        Returns:
            Whether to stop.
        """
        value, current = _checks.scalar("value", value), read_params(params)
        if self._best_params.arrays:
            current = replace(self._best_params, arrays=match_order(current, self._best_params))
            check_compatible(current.arrays, self._best_params)
        improves = self._monitor.improves(value)
        if improves:
            current = replace(current, arrays=[copy_array(array) for array in current.arrays])
        self.updates += 1  # now that nothing can fail
        if improves:
            self._best_params, self.best_update = current, self.updates
        return self._monitor.update(value)

    def restore(self, params: Any) -> None:
        """Write the best parameters back, in place, those with names by name. ``ValueError`` or ``TypeError``
        if there are none, or if ``params`` do not fit, have other names or cannot be written to; nothing is
        changed then."""
        if not self.best_update:
            raise ValueError("no update has brought an improvement, so there is nothing to restore")
        write_params(match_order(read_params(params), self._best_params), self._best_params)

    def state_dict(self) -> dict[str, Any]:
        """All that :meth:`load_state_dict` needs to go on, copies of the best parameters and their names
        (``None`` in a list) among it."""
        return {
            **self._monitor.state_dict(),
            "updates": self.updates,
            "best_update": self.best_update,
            "names": self._best_params.names,
            "params": [copy_array(array) for array in self._best_params.arrays],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was called, with copies of its arrays. ``ValueError`` if the mode was
        another, ``ValueError`` or ``TypeError`` for what is no such state; nothing is changed then."""
        _state_dict.check_keys(state, ("updates", "best_update", "params"))
        updates, best_update = (_checks.count(k, state[k]) for k in ("updates", "best_update"))
        if best_update > updates:
            raise ValueError(f"state_dict's best_update is {best_update}, but updates is {updates}")
        arrays = [copy_array(array) for array in _state_dict.read_arrays(state, "params")]
        best_params = Params(arrays, "list", _state_dict.read_names(state, arrays))
        self._monitor.load_state_dict(state)
        self.updates, self.best_update, self._best_params = updates, best_update, best_params

    def __repr__(self) -> str:
        w = self._monitor
        return f"EarlyStopping(patience={w.patience}, min_delta={w.min_delta}, mode={w.mode!r})"
