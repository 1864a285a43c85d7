"""The generator of offsets for random numbers of dropout and initialization."""

from __future__ import annotations

import threading
from typing import Any

from fastopt import _checks, _state_dict
from fastopt._dropout import philox4x32

_MAX_UINT64 = 2**64 - 1


def _key(seed: int, stream: int) -> int:
    """Return the seed itself, or a key mixed from both with words that no array element uses."""
    if stream == 0:
        return seed
    low, high, _, _ = philox4x32(seed=seed, offset=stream, index=_MAX_UINT64)
    return high << 32 | low


class Generator:
    """A source of offsets, each returned once. A key and an offset determine the random numbers of one
    :func:`fastopt.functional.dropout_forward` call.

    Args:
        seed: an integer in [0, 2**64).
        stream: an integer in [0, 2**64). In a data-parallel job, use one seed and a different stream per rank.
            The key of stream 0 is the seed; the key of another stream is the first two words of
            ``philox4x32(seed=seed, offset=stream, index=2**64 - 1)``.

    A generator may be shared by layers and threads, copied and pickled. Loading its :meth:`state_dict` resumes
    the same masks.

    >>> import fastopt
    >>> generator = fastopt.Generator(7)
    >>> generator.next_offset(), generator.next_offset()
    (0, 1)
    >>> generator
    Generator(7, stream=0, offset=2)
    """

    _seed: int
    _stream: int
    _key: int
    _offset: int

    def __init__(self, seed: int, stream: int = 0) -> None:
        self._lock = threading.Lock()
        self._set(seed, stream, 0)

    def _set(self, seed: Any, stream: Any, offset: Any) -> None:
        seed = _checks.uint64("seed", seed)
        stream = _checks.uint64("stream", stream)
        offset = _checks.uint64("offset", offset)
        key = _key(seed, stream)
        with self._lock:
            self._seed, self._stream, self._offset, self._key = seed, stream, offset, key

    @property
    def seed(self) -> int:
        """The seed passed to the constructor."""
        return self._seed

    @property
    def stream(self) -> int:
        """The stream passed to the constructor."""
        return self._stream

    @property
    def key(self) -> int:
        """The value to pass to functions of :mod:`fastopt.functional` as ``seed``."""
        return self._key

    @property
    def offset(self) -> int:
        """The offset that :meth:`next_offset` returns next."""
        return self._offset

    def next_offset(self) -> int:
        """Return the next unused offset. Raises ``OverflowError`` after 2**64 - 1 offsets."""
        with self._lock:
            offset = self._offset
            if offset == _MAX_UINT64:
                raise OverflowError("this generator is exhausted: all 2**64 - 1 offsets have been used")
            self._offset = offset + 1
        return offset

    def _undo_next_offset(self, offset: int) -> None:
        """Take back the offset of a call that raised, unless another one has been returned since."""
        with self._lock:
            if self._offset == offset + 1:
                self._offset = offset

    def state_dict(self) -> dict[str, int]:
        """Return the state from which :meth:`load_state_dict` resumes the same numbers."""
        with self._lock:
            return {"seed": self._seed, "stream": self._stream, "offset": self._offset}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Load a state returned by :meth:`state_dict`. Raises ``ValueError`` or ``TypeError`` if it does not
        fit; the object is then unchanged."""
        _checks.mapping("state", state)
        _state_dict.check_same_keys("state_dict", state, self.state_dict())
        self._set(**state)

    def __getstate__(self) -> dict[str, int]:
        return self.state_dict()

    def __setstate__(self, state: dict[str, int]) -> None:
        self._lock = threading.Lock()
        self._set(**state)

    def __repr__(self) -> str:
        return f"Generator({self._seed}, stream={self._stream}, offset={self._offset})"
