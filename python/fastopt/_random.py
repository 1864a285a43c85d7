"""Random numbers by address: each is a function of a seed, an offset and its place alone, so that it does not
matter who asks, in which order, or for how many at once. Made on the host by NumPy, from integer and IEEE
operations only: the same bits on every machine, whatever library the numbers are for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastopt import _checks
from fastopt._ieee_math import normal_quantile

# Who draws at offsets that no Generator reaches, each in a range of its own: more may be added at the end.
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
# Salmon et al. 2011, table 2, and Random123: multipliers, and what a round adds to the key.
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10

PART = 2**14


def epoch_number(name: str, value: Any) -> int:
    """``value`` as an epoch that :func:`stream` can tell from all others."""
    epoch = _checks.count(name, value)
    if epoch >= 2**48:
        raise ValueError(f"{name} must lie in [0, 2**48), got {value!r}")
    return epoch


def stream(name: str, epoch: int) -> int:
    """The offset at which ``name`` draws in this epoch, 0 to 2**48 - 1."""
    return (1 + STREAMS.index(name)) << 48 | epoch


def philox(seed: int, offset: int, blocks: Any) -> list[Any]:
    """The four words, in uint64, of each of Philox4x32-10's blocks: counter (offset, block), key seed. The
    compiled Philox gives masks and single blocks; a test holds this one to it."""
    x0, x1 = (np.full(1, word, np.uint64) for word in (offset & MASK, offset >> 32))
    x2, x3 = blocks & MASK, blocks >> 32
    key0, key1 = seed & MASK, seed >> 32
    for _ in range(ROUNDS):
        a, b = x0 * MULTIPLIERS[0], x2 * MULTIPLIERS[1]
        x0, x1, x2, x3 = (b >> 32) ^ x1 ^ key0, b & MASK, (a >> 32) ^ x3 ^ key1, a & MASK
        key0, key1 = (key0 + WEYL[0]) & MASK, (key1 + WEYL[1]) & MASK
    return [x0, x1, x2, x3]


def bits(seed: int, offset: int, rows: Any, n: int, start: int = 0) -> Any:
    """64 random bits for each of ``n`` places from ``start``, an even one, in each row: uint64 (len(rows),
    n). A row, one of 2**32, has 2**32 places, two words each."""
    rows = np.asarray(rows, np.uint64)
    blocks = (rows[:, None] << 31) + np.arange(start // 2, (start + n + 1) // 2, dtype=np.uint64)
    x0, x1, x2, x3 = philox(seed, offset, blocks)
    pairs = np.stack([x1 << 32 | x0, x3 << 32 | x2], axis=-1)
    return pairs.reshape(len(rows), 2 * blocks.shape[1])[:, :n]


def uniforms(seed: int, offset: int, rows: Any, n: int, start: int = 0) -> Any:
    """(k + 1/2) / 2**52 with k of the upper 52 bits: float64, exact, never 0 or 1, symmetric about 1/2."""
    return ((bits(seed, offset, rows, n, start) >> 12).astype(np.float64) + 0.5) * 2.0**-52


def normals(seed: int, offset: int, rows: Any, n: int, start: int = 0) -> Any:
    """Standard normal numbers by inversion, one for each uniform one; up to 8.2 in size."""
    return normal_quantile(uniforms(seed, offset, rows, n, start))


@np.errstate(under="ignore")  # of the cast to float16: rounding to a subnormal number is no error
def fill(values: Any, kind: str, scale: float, seed: int, offset: int) -> None:
    """Write the first row's numbers into ``values``, flat, in NumPy: normal ones times ``scale``, or
    uniform ones in +-``scale``. By parts that stay in cache."""
    for start in range(0, len(values), PART):
        part = values[start : start + PART]
        if kind == "normal":
            part[:] = (scale * normals(seed, offset, [0], len(part), start))[0]
        else:
            part[:] = (scale * (2.0 * uniforms(seed, offset, [0], len(part), start) - 1.0))[0]
