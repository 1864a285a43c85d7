"""Early stopping: stop when a monitored value no longer improves, and restore the best parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from fastopt import _checks, _state_dict
from fastopt._array_api import copy_array
from fastopt._metric_monitor import MetricMonitor
from fastopt._param_copies import check_compatible, match_order, read_params, write_params
from fastopt._params import Params


class EarlyStopping:
    r"""Monitor a value, report when to stop, and keep a copy of the best parameters.

    An improvement is a value below :math:`\text{best} - \mathtt{min\_delta}` (``mode="min"``), or above
    :math:`\text{best} + \mathtt{min\_delta}` (``"max"``); NaN is never an improvement.
    Training should stop after ``patience`` updates in a row without an improvement.

    Args:
        patience: number of updates, 1 or more; usually one update per epoch.
        min_delta: 0 or more.
        mode: ``"min"`` for an error, ``"max"`` for an accuracy.

    ``best`` is the best value, ``best_update`` the number of its update, counted from 1 (0 if there is none
    yet), ``waited`` the number of updates since then, and ``stopped`` whether training should stop.

    >>> import numpy as np, fastopt
    >>> w = np.zeros(1)
    >>> stopper = fastopt.EarlyStopping(patience=2)
    >>> for error in (3.0, 1.0, 2.0, 1.5, 0.5):
    ...     w[:] = error  # in place of training and validation
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
        """The best value so far; an infinity before the first one."""
        return self._monitor.best

    @property
    def waited(self) -> int:
        """The number of updates since the best one."""
        return self._monitor.waited

    @property
    def stopped(self) -> bool:
        """Whether the last ``patience`` updates brought no improvement."""
        return self._monitor.out_of_patience

    def update(self, value: float, params: Any) -> bool:
        """Record a new value, and copy the parameters if it is an improvement.

        Args:
            value: the validation error, a number or a zero-dimensional array.
            params: parameters in any form accepted by an optimizer, read only. Their number, shapes and names
                must not change between calls (named ones may be reordered). Include BatchNorm's running
                statistics to restore them as well.

        Returns:
            Whether training should stop.

        Raises:
            ValueError, TypeError: if ``value`` is not a number or ``params`` do not match the copy; the update
                is not counted then.
        """
        value, current = _checks.scalar("value", value), read_params(params)
        if self._best_params.arrays:
            ordered = match_order(current, self._best_params)
            check_compatible(ordered, self._best_params.arrays)
            current = replace(self._best_params, arrays=[array for _, array in ordered])
        improves = self._monitor.improves(value)
        if improves:
            current = replace(current, arrays=[copy_array(array) for array in current.arrays])
        self.updates += 1  # nothing below can fail
        if improves:
            self._best_params, self.best_update = current, self.updates
        return self._monitor.update(value)

    def restore(self, params: Any) -> None:
        """Write the best parameters into ``params``, in place, matched by name where they have names. Raises
        ``ValueError`` or ``TypeError`` if there is no copy yet, or if ``params`` do not fit, have other names
        or cannot be written to; nothing is changed then."""
        if not self.best_update:
            raise ValueError("there is nothing to restore: no update was an improvement")
        write_params(match_order(read_params(params), self._best_params), self._best_params.arrays)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for :meth:`load_state_dict`, including copies of the best parameters and their names
        (``None`` for a list)."""
        return {
            **self._monitor.state_dict(),
            "updates": self.updates,
            "best_update": self.best_update,
            "names": self._best_params.names,
            "params": [copy_array(array) for array in self._best_params.arrays],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state returned by :meth:`state_dict`; its arrays are copied. Raises ``ValueError`` if the mode
        differs, and ``ValueError`` or ``TypeError`` if it does not fit; nothing is changed then."""
        _state_dict.check_keys(state, ("updates", "best_update", "params"))
        updates, best_update = (_checks.count(k, state[k]) for k in ("updates", "best_update"))
        if best_update > updates:
            raise ValueError(f"state_dict's best_update is {best_update}, but updates is {updates}")
        arrays = [copy_array(array) for array in _state_dict.read_arrays(state, "params")]
        best_params = Params(arrays, "list", _state_dict.read_names(state, arrays))
        self._monitor.load_state_dict(state)
        self.updates, self.best_update, self._best_params = updates, best_update, best_params

    def __repr__(self) -> str:
        return f"EarlyStopping({self._monitor.options()})"
