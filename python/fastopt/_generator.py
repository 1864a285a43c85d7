"""Where dropout's random numbers come from."""

from __future__ import annotations

import threading
from typing import Any

from fastopt import _checks, _state_dict
from fastopt._dropout import philox4x32

_MAX_UINT64 = 2**64 - 1


def _key(seed: int, stream: int) -> int:
    """The seed itself, or one mixed of both by words that no array's elements ever read."""
    if stream == 0:
        return seed
    low, high, _, _ = philox4x32(seed=seed, offset=stream, index=_MAX_UINT64)
    return high << 32 | low


class Generator:
    """Hands out offsets, each once: the random numbers of one :func:`fastopt.functional.dropout_forward` call
    are those of a key and an offset.

    Args:
        seed: a whole number in [0, 2**64).
        stream: likewise; the ranks of a data-parallel job take one seed and a stream each. Stream 0 has the
            seed for its key, another one the first two words of
            ``philox4x32(seed=seed, offset=stream, index=2**64 - 1)``.

    It may be shared by layers and threads, copied and pickled. A :meth:`state_dict` resumes the same masks.

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
        """As it was given."""
        return self._seed

    @property
    def stream(self) -> int:
        """As it was given."""
        return self._stream

    @property
    def key(self) -> int:
        """What to give a function of :mod:`fastopt.functional` as its ``seed``."""
        return self._key

    @property
    def offset(self) -> int:
        """The offset that is handed out next."""
        return self._offset

    def next_offset(self) -> int:
        """An offset that nobody had before."""
        with self._lock:
            offset = self._offset
            if offset == _MAX_UINT64:
                raise OverflowError("this generator is exhausted: all 2**64 - 1 offsets have been used")
            self._offset = offset + 1
        return offset

    def _undo_next_offset(self, offset: int) -> None:
        """Of a call that was refused, unless somebody else has had the next one since."""
        with self._lock:
            if self._offset == offset + 1:
                self._offset = offset

    def state_dict(self) -> dict[str, int]:
        """What :meth:`load_state_dict` needs to go on with the same numbers."""
        with self._lock:
            return {"seed": self._seed, "stream": self._stream, "offset": self._offset}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take up a :meth:`state_dict`. ``ValueError`` or ``TypeError`` if it is none; then nothing changes."""
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
