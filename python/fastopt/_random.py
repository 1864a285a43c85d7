"""Counter-based random numbers: each value depends only on the seed, offset and index, so results do not depend
on the order or batching of requests. NumPy computes them on the host from integer and IEEE operations only, so
that they are bitwise identical on every machine and for every library.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastopt import _checks
from fastopt._ieee_math import normal_quantile

# Users of offsets that no Generator reaches, each with a range of its own. Append new ones at the end.
STREAMS = (
    "minibatches",
    "crop",
    "flip horizontal",
    "flip vertical",
    "rotate",
    "jitter",
    "noise",
    "cutout",
    "mixup",
    "synonyms",
    "back-translation",
)

MASK = 0xFFFFFFFF
# Salmon et al. 2011, table 2, and Random123: multipliers, and the key increments of a round.
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10

PART = 2**14


def epoch_number(name: str, value: Any) -> int:
    """Return ``value`` as an epoch in [0, 2**48), which :func:`stream` maps to an offset of its own."""
    epoch = _checks.count(name, value)
    if epoch >= 2**48:
        raise ValueError(f"{name} must lie in [0, 2**48), got {value!r}")
    return epoch


def stream(name: str, epoch: int) -> int:
    """Return the offset of the random numbers of ``name`` in this epoch, 0 to 2**48 - 1."""
    return (1 + STREAMS.index(name)) << 48 | epoch


def philox(seed: int, offset: int, blocks: Any) -> list[Any]:
    """Return the four words, in uint64, of Philox4x32-10 for each block: counter (offset, block), key seed. The
    compiled Philox computes masks and single blocks; a test compares the two."""
    x0, x1 = (np.full(1, word, np.uint64) for word in (offset & MASK, offset >> 32))
    x2, x3 = blocks & MASK, blocks >> 32
    key0, key1 = seed & MASK, seed >> 32
    for _ in range(ROUNDS):
        a, b = x0 * MULTIPLIERS[0], x2 * MULTIPLIERS[1]
        x0, x1, x2, x3 = (b >> 32) ^ x1 ^ key0, b & MASK, (a >> 32) ^ x3 ^ key1, a & MASK
        key0, key1 = (key0 + WEYL[0]) & MASK, (key1 + WEYL[1]) & MASK
    return [x0, x1, x2, x3]


def bits(seed: int, offset: int, rows: Any, n: int, start: int = 0) -> Any:
    """Return 64 random bits for each of ``n`` places from ``start``, which is even, in each row: uint64
    (len(rows), n). There are 2**32 rows of 2**32 places of two words."""
    rows = np.asarray(rows, np.uint64)
    blocks = (rows[:, None] << 31) + np.arange(start // 2, (start + n + 1) // 2, dtype=np.uint64)
    x0, x1, x2, x3 = philox(seed, offset, blocks)
    pairs = np.stack([x1 << 32 | x0, x3 << 32 | x2], axis=-1)
    return pairs.reshape(len(rows), 2 * blocks.shape[1])[:, :n]


def uniforms(seed: int, offset: int, rows: Any, n: int, start: int = 0) -> Any:
    """Return (k + 1/2) / 2**52 with k from the upper 52 bits: float64, exact, never 0 or 1, symmetric about
    1/2."""
    return ((bits(seed, offset, rows, n, start) >> 12).astype(np.float64) + 0.5) * 2.0**-52


def normals(seed: int, offset: int, rows: Any, n: int, start: int = 0) -> Any:
    """Return standard normal numbers by inversion of the uniform ones; up to 8.2 in magnitude."""
    return normal_quantile(uniforms(seed, offset, rows, n, start))


@np.errstate(under="ignore")  # of the cast to float16: rounding to a subnormal number is no error
def fill(values: Any, kind: str, scale: float, seed: int, offset: int) -> None:
    """Fill the flat NumPy array ``values`` with the numbers of row 0: normal ones times ``scale``, or uniform
    ones in +-``scale``. Works in parts that fit the cache."""
    for start in range(0, len(values), PART):
        part = values[start : start + PART]
        if kind == "normal":
            part[:] = (scale * normals(seed, offset, [0], len(part), start))[0]
        else:
            part[:] = (scale * (2.0 * uniforms(seed, offset, [0], len(part), start) - 1.0))[0]
