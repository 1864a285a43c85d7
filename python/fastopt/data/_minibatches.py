"""Mini-batches in an order that can be repeated and resumed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastopt import _checks, _random, _state_dict
from fastopt._array_api import as_array, take_rows

# Entries that must be equal in a state to load.
_IDENTITY = ("samples", "batch_size", "shuffle", "seed", "drop_last")


class MiniBatches:
    """The result of :func:`minibatches`.

    A ``for`` loop runs from the current position to the end of the current epoch; the next loop runs the next
    epoch. ``epoch`` and ``position`` (the number of samples of this epoch returned so far) can be set,
    ``position`` only to the end of a batch: ``position = 0`` restarts the epoch. ``len`` is the number of
    batches in an epoch.

    Only one iteration is active at a time. Starting another, loading a state, or setting ``epoch`` or
    ``position`` invalidates earlier iterators, which then raise ``RuntimeError``. The other attributes are
    read-only and hold the constructor arguments.
    """

    def __init__(
        self,
        arrays: tuple[Any, ...],
        *,
        batch_size: int | None,
        shuffle: bool,
        seed: int,
        drop_last: bool,
    ) -> None:
        if not arrays:
            raise TypeError("minibatches needs at least one array")
        self.arrays = [
            # NumPy arrays are only indexed, which keeps a mask.
            a if isinstance(a, np.ndarray) else as_array(f"arrays[{i}]", a)
            for i, a in enumerate(arrays)
        ]
        for i, array in enumerate(self.arrays):
            if len(array.shape) == 0:
                raise ValueError(f"arrays[{i}] has no axes, expected samples along the first")
            if array.shape[0] != self.arrays[0].shape[0]:
                raise ValueError(
                    f"arrays[{i}] has {array.shape[0]} samples, but arrays[0] has {self.arrays[0].shape[0]}"
                )
        self.samples = int(self.arrays[0].shape[0])
        full = max(self.samples, 1)
        self.batch_size = full if batch_size is None else _checks.count("batch_size", batch_size, 1)
        self.shuffle = _checks.boolean("shuffle", shuffle)
        self.seed = _checks.uint64("seed", seed)
        self.drop_last = _checks.boolean("drop_last", drop_last)
        if self.samples and not len(self):
            raise ValueError(
                f"batch_size is {self.batch_size}, but there are {self.samples} samples; with drop_last "
                "no batch is left"
            )
        self._epoch = self._position = self._generation = 0

    @property
    def epoch(self) -> int:
        """The current epoch, from 0 to 2**48 - 1."""
        return self._epoch

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._seek(_random.epoch_number("epoch", value), self._position)

    @property
    def position(self) -> int:
        """The number of samples of this epoch returned so far."""
        return self._position

    @position.setter
    def position(self, value: int) -> None:
        self._seek(self._epoch, self._position_at("position", value))

    def _position_at(self, name: str, value: Any) -> int:
        position, end = _checks.count(name, value), self._epoch_length()
        if position > end or (position % self.batch_size and position != end):
            raise ValueError(
                f"{name} is {position}, expected a multiple of batch_size={self.batch_size} up to {end}, or "
                f"{end}, the end of the epoch"
            )
        return position

    def _seek(self, epoch: int, position: int) -> None:
        self._epoch, self._position = epoch, position
        self._generation += 1

    def __len__(self) -> int:
        return -(-self._epoch_length() // self.batch_size)

    def _epoch_length(self) -> int:
        """Return the number of samples that an epoch returns."""
        return self.samples - self.samples % self.batch_size if self.drop_last else self.samples

    def order(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the numbers of all samples in this epoch's order: sorted by 64 random bits each. Samples
        that ``drop_last`` leaves out are at the end."""
        if not self.shuffle:
            return np.arange(self.samples)
        offset = _random.stream("minibatches", self._epoch)
        bits = np.empty(self.samples, np.uint64)
        for start in range(0, self.samples, _random.PART):  # intermediate results stay small
            part = bits[start : start + _random.PART]
            part[:] = _random.bits(self.seed, offset, [0], len(part), start)[0]
        return np.argsort(bits, kind="stable")

    def __iter__(self) -> Iterator[Any]:
        self._generation += 1
        return self._iterate(self._generation)

    def _iterate(self, generation: int) -> Iterator[Any]:
        self._check_current(generation)
        order = self.order() if self.shuffle else None
        while self._position < self._epoch_length():
            stop = min(self._position + self.batch_size, self._epoch_length())
            rows = slice(self._position, stop)
            self._position = stop  # before the yield: a checkpoint made in the loop counts this batch
            batch = [take_rows(a, rows if order is None else order[rows]) for a in self.arrays]
            yield tuple(batch) if len(batch) > 1 else batch[0]
            self._check_current(generation)
        self._epoch, self._position = self._epoch + 1, 0

    def _check_current(self, generation: int) -> None:
        if generation != self._generation:
            raise RuntimeError(
                "this iterator is no longer valid: another iteration was started, or epoch, position or state "
                "was changed"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the position, and the arguments that determine the order."""
        state = {name: getattr(self, name) for name in _IDENTITY}
        return {**state, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state returned by :meth:`state_dict`: the next loop returns the batches that were left then.
        Raises ``ValueError`` or ``TypeError`` if it does not fit; nothing is changed then."""
        _state_dict.check_identity(state, {name: getattr(self, name) for name in _IDENTITY})
        _state_dict.check_keys(state, ("epoch", "position"))
        epoch = _random.epoch_number("state_dict's epoch", state["epoch"])
        self._seek(epoch, self._position_at("state_dict's position", state["position"]))

    def __repr__(self) -> str:
        text = ", ".join(f"{name}={getattr(self, name)!r}" for name in _IDENTITY)
        return f"MiniBatches({text})"


def minibatches(
    *arrays: Any,
    batch_size: int | None,
    shuffle: bool = True,
    seed: int = 0,
    drop_last: bool = False,
) -> MiniBatches:
    """Iterate over the samples of one or more arrays, ``batch_size`` at a time, epoch after epoch.

    Args:
        *arrays: samples along the first axis, the same number in each; any dtype. Memory maps are read a
            batch at a time; with ``shuffle=False`` batches are views, and nothing is copied.
        batch_size: the number of samples in a batch; ``None`` is the whole set (batch gradient descent), 1 a
            single sample (stochastic gradient descent).
        shuffle: whether every epoch has a new order, or the order of the arrays.
        seed: selects the orders, 0 to 2**64 - 1. They are the same on every machine and for every library.
        drop_last: leave out the last batch of an epoch if it is short (``drop_last`` in torch,
            ``drop_remainder`` in Keras).

    Returns:
        A :class:`MiniBatches`. Each batch is a tuple of arrays, or one array if one was passed. Augmentation
        needs the numbers of the samples: pass ``np.arange(len(x))`` as a further array.

    Raises:
        ValueError: If the arrays differ in length, or ``drop_last`` leaves no batch.

    >>> import numpy as np, fastopt
    >>> x, y = np.arange(10.0).reshape(5, 2), np.arange(5)
    >>> batches = fastopt.data.minibatches(x, y, batch_size=2, seed=1)
    >>> [yb.tolist() for xb, yb in batches]
    [[3, 2], [1, 4], [0]]
    >>> [yb.tolist() for xb, yb in batches]
    [[2, 3], [0, 4], [1]]

    Source: Goodfellow, Bengio & Courville 2016, section 8.1.3. The order results from sorting Philox's
    words (Salmon et al. 2011, doi:10.1145/2063384.2063405), 64 bits per sample.
    """
    return MiniBatches(arrays, batch_size=batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last)
