"""Mini-batches: a few samples at a time, in an order that can be repeated and gone on with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastopt import _checks, _random, _state_dict
from fastopt._array_api import check_array, take_rows

# What a checkpoint must agree in with the batches that load it.
_IDENTITY = ("samples", "batch_size", "shuffle", "seed", "drop_last")


class MiniBatches:
    """What :func:`minibatches` returns.

    A ``for`` loop runs to the end of the current epoch, from wherever it stands; the next loop runs the next
    epoch. ``epoch`` and ``position``, the samples of this epoch handed out so far, may be set, ``position`` to
    where a batch ends: ``position = 0`` starts the epoch again. ``len`` is the number of batches in an epoch.

    One loop at a time: a new loop, a state that is loaded, and ``epoch`` or ``position``, when it is set, end
    those begun before, which raise ``RuntimeError`` when they are asked for a batch. The other attributes say
    what was given, and are not for setting.
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
            # NumPy's as they are: samples are only picked from them, which keeps a mask.
            a if isinstance(a, np.ndarray) else check_array(f"arrays[{i}]", a)
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
                f"batch_size is {self.batch_size}, but there are {self.samples} samples: "
                "with drop_last no batch is left"
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
        """How many samples of it have been handed out."""
        return self._position

    @position.setter
    def position(self, value: int) -> None:
        self._seek(self._epoch, self._position_at("position", value))

    def _position_at(self, name: str, value: Any) -> int:
        position, end = _checks.count(name, value), self._epoch_length()
        if position > end or (position % self.batch_size and position != end):
            raise ValueError(f"{name} is {position}, which is no end of a batch")
        return position

    def _seek(self, epoch: int, position: int) -> None:
        self._epoch, self._position = epoch, position
        self._generation += 1

    def __len__(self) -> int:
        return -(-self._epoch_length() // self.batch_size)

    def _epoch_length(self) -> int:
        """How many samples an epoch hands out."""
        return self.samples - self.samples % self.batch_size if self.drop_last else self.samples

    def order(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """All samples in the order of this epoch's batches: sorted by 64 random bits each. What ``drop_last``
        leaves out stands at the end."""
        if not self.shuffle:
            return np.arange(self.samples)
        offset = _random.stream("minibatches", self._epoch)
        return np.argsort(_random.bits(self.seed, offset, [0], self.samples)[0], kind="stable")

    def __iter__(self) -> Iterator[Any]:
        self._generation += 1
        return self._iterate(self._generation)

    def _iterate(self, generation: int) -> Iterator[Any]:
        self._check_current(generation)
        order = self.order() if self.shuffle else None
        while self._position < self._epoch_length():
            stop = min(self._position + self.batch_size, self._epoch_length())
            rows = slice(self._position, stop)
            self._position = stop  # before the batch is out: a checkpoint made with it counts it
            batch = [take_rows(a, rows if order is None else order[rows]) for a in self.arrays]
            yield tuple(batch) if len(batch) > 1 else batch[0]
            self._check_current(generation)
        self._epoch, self._position = self._epoch + 1, 0

    def _check_current(self, generation: int) -> None:
        if generation != self._generation:
            raise RuntimeError(
                "this loop over mini-batches has ended: since it began, another one was started, or epoch, "
                "position or a state was set"
            )

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, and which order it stands in."""
        state = {name: getattr(self, name) for name in _IDENTITY}
        return {**state, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was called: the next loop hands out the batches that were left.
        ``ValueError`` if the checkpoint is of other batches, ``TypeError`` if it is none; nothing is changed
        then."""
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
    """The samples of one or more arrays, ``batch_size`` at a time, epoch after epoch.

    Args:
        *arrays: samples along the first axis, the same number in each; any dtype. Memory maps are read a
            batch at a time; with ``shuffle=False`` batches are views, and nothing is copied.
        batch_size: ``None`` is the whole set (batch gradient descent), 1 a single sample (stochastic).
        shuffle: a new order in every epoch, or that of the arrays.
        seed: chooses the orders, 0 to 2**64 - 1; one is the same on every machine and for every library.
        drop_last: leave out the last batch of an epoch if it is short (torch's and Keras's ``drop_last`` and
            ``drop_remainder``).

    Returns:
        A :class:`MiniBatches`: each batch is a tuple, or one array if one was given. For augmentation, which
        wants the samples' numbers, give ``np.arange(len(x))`` as a further array.

    Raises:
        ValueError: arrays of different length; no batch left.

    >>> import numpy as np, fastopt
    >>> x, y = np.arange(10.0).reshape(5, 2), np.arange(5)
    >>> batches = fastopt.data.minibatches(x, y, batch_size=2, seed=1)
    >>> [yb.tolist() for xb, yb in batches]
    [[3, 2], [1, 4], [0]]
    >>> [yb.tolist() for xb, yb in batches]
    [[2, 3], [0, 4], [1]]

    Source: Goodfellow, Bengio & Courville 2016, section 8.1.3. The order sorts Philox's words (Salmon et al.
    2011, doi:10.1145/2063384.2063405), 64 bits a sample.
    """
    return MiniBatches(arrays, batch_size=batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last)
