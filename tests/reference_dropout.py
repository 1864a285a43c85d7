"""Reference Philox4x32-10 and dropout in plain NumPy, written from the papers and the specification, not from
csrc/. Words are 64-bit integers; values are float64 or have the compute type.
"""

from __future__ import annotations

import numpy as np

WORD = np.uint64(0xFFFFFFFF)
ALPHA = -1.0507009873554804934193349852946 * 1.6732632423543772848170429916717  # SELU at minus infinity


def philox(counter, key) -> list[np.ndarray]:
    """Salmon et al. 2011: four words (arrays) from a counter of four words and a key of two."""
    c = [np.asarray(word, np.uint64) for word in counter]
    k = [int(word) for word in key]
    for _ in range(10):
        left, right = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [
            (right >> np.uint64(32)) ^ c[1] ^ np.uint64(k[0]),
            right & WORD,
            (left >> np.uint64(32)) ^ c[3] ^ np.uint64(k[1]),
            left & WORD,
        ]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


def words(index, *, seed, offset=0) -> np.ndarray:
    """The random words of the elements with these row-major indices."""
    index = np.asarray(index, np.uint64)
    group = index >> np.uint64(2)
    counter = (offset % 2**32, offset >> 32, group & WORD, group >> np.uint64(32))
    four = philox(np.broadcast_arrays(*(np.asarray(c, np.uint64) for c in counter)), split(seed))
    place = (index % np.uint64(4)).astype(np.intp)[..., None]
    return np.take_along_axis(np.stack(four, -1), place, -1)[..., 0]


def split(number: int) -> tuple[int, int]:
    return number % 2**32, number >> 32


def mask(shape, p, *, seed, offset=0, channel_axis=None, start=0) -> np.ndarray:
    """True where an element is kept."""
    index = np.arange(int(np.prod(shape)), dtype=np.uint64).reshape(shape)
    if channel_axis is not None:
        axis = channel_axis % len(shape)
        n, c = np.indices(shape)[[0, axis]]
        index = (n * shape[axis] + c).astype(np.uint64)
    drawn = words(index + np.uint64(start), seed=seed, offset=offset)
    return drawn >= np.uint64(round(p * 2**32))


def compute_dtype(dtype) -> np.dtype:
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def constants(p, *, training=True, scaling="inverted", alpha=False) -> tuple[float, float, float]:
    """Scale and shift for kept values, and the value of dropped ones."""
    if not training:
        return (1.0 if scaling == "inverted" else 1 - p), 0.0, 0.0
    if scaling == "test_time" or p in (0, 1):
        return 1.0, 0.0, 0.0
    if alpha:
        a = 1 / np.sqrt((1 - p) * (1 + p * ALPHA**2))
        return a, -a * p * ALPHA, a * ALPHA - a * p * ALPHA
    return 1 / (1 - p), 0.0, 0.0


def forward(x, keep, p, *, residual=None, bias=None, **options) -> np.ndarray:
    """Dropout in the compute type, one IEEE operation at a time, then rounded to the dtype of ``x``."""
    f = compute_dtype(x.dtype).type
    scale, shift, dropped = (f(c) for c in constants(p, **options))
    y = x.astype(f)
    if bias is not None:
        y = y + bias.astype(f)
    with np.errstate(all="ignore"):
        y = y * scale
        if shift != 0:
            y = y + shift
    if not options.get("training", True):  # for p = 1 the result is 0, also for inf * 0
        keep = np.full_like(keep, scale > 0)
    y = np.where(keep, y, dropped)
    if residual is not None:
        y = residual.astype(f) + y
    with np.errstate(over="ignore", invalid="ignore"):
        return y.astype(x.dtype)
