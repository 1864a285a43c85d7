"""Geometric augmentation: every function here moves pixels."""

from __future__ import annotations

from math import inf
from numbers import Real
from sys import float_info
from typing import Any, Literal

import numpy as np

from fastopt import _checks
from fastopt._array_api import asarray_like, is_floating, namespace
from fastopt._array_utils import Array, dtype_name
from fastopt._ieee_math import cos_pi, sin_pi
from fastopt.data.augment._draws import FROM_NCHW, Draws, Layout, as_nchw, compute_dtype, permuted

LARGEST = {  # the largest finite number of each dtype
    "float16": 65504.0,
    "bfloat16": float.fromhex("0x1.fep127"),
    "float32": float.fromhex("0x1.fffffep127"),
    "float64": float_info.max,
}


def crop(
    images: Any,
    draws: Draws,
    *,
    padding: int = 4,
    size: tuple[int, int] | None = None,
    fill: float = 0.0,
    layout: Layout = "NCHW",
) -> Array:
    """Crop a window at a random position from each image.

    Args:
        images: a batch; any dtype.
        draws: the random numbers of its samples.
        padding: number of pixels added on all sides before cropping.
        size: (height, width) of the window; by default the size of the images.
        fill: the value of the padding; the dtype must be able to hold it.
        layout: ``"NCHW"`` or ``"NHWC"``.

    Every position is equally likely. With the defaults the images are shifted by up to 4 pixels.

    >>> import numpy as np
    >>> from fastopt.data import augment
    >>> x = np.arange(1, 5).reshape(1, 1, 2, 2)
    >>> augment.crop(x, augment.Draws([0], seed=3), padding=1)[0, 0]
    array([[0, 1],
           [0, 3]])

    Conventions: torchvision's ``RandomCrop``. Source: Krizhevsky, Sutskever & Hinton 2012, section 4.1; the
    padding, He et al. 2016, section 4.2.
    """
    x = as_nchw(images, draws, layout)
    _check_fill(fill, x)
    padding = _checks.count("padding", padding)
    room = [int(n) + 2 * padding for n in x.shape[2:]]
    window = x.shape[2:] if size is None else _checks.pair("size", size)
    height, width = (_checks.count("size", n, 1) for n in window)
    if height > room[0] or width > room[1]:
        raise ValueError(f"size is ({height}, {width}), but padded images have ({room[0]}, {room[1]})")
    u = draws.uniforms("crop", 2)
    top, left = (_randint(u[:, i], room[i] - n + 1) - padding for i, n in enumerate((height, width)))
    rows, columns = top[:, None] + np.arange(height), left[:, None] + np.arange(width)
    cut = _gather_pixels(
        x, asarray_like(rows[:, :, None], x), asarray_like(columns[:, None, :], x), fill
    )
    return permuted(cut, FROM_NCHW[layout])


def flip(
    images: Any,
    draws: Draws,
    *,
    p: float = 0.5,
    axis: Literal["horizontal", "vertical"] = "horizontal",
    layout: Layout = "NCHW",
) -> Array:
    """Flip each image with probability ``p``: left to right, or top to bottom with ``axis="vertical"``.

    ``images`` may have any dtype.

    >>> import numpy as np
    >>> from fastopt.data import augment
    >>> x = np.arange(2).reshape(1, 1, 1, 2)
    >>> augment.flip(x, augment.Draws([0]), p=1.0)
    array([[[[1, 0]]]])

    Conventions: torchvision's ``RandomHorizontalFlip`` and ``RandomVerticalFlip``.
    """
    x = as_nchw(images, draws, layout)
    _checks.choice("axis", axis, ("horizontal", "vertical"))
    chosen = draws.uniforms(f"flip {axis}", 1) < _checks.real("p", p, "[0, 1]")
    library = namespace(x)
    mirrored = library.flip(x, axis=3 if axis == "horizontal" else 2)
    return permuted(
        library.where(asarray_like(chosen[:, :, None, None], x), mirrored, x), FROM_NCHW[layout]
    )


def rotate(
    images: Any,
    draws: Draws,
    *,
    degrees: float = 15.0,
    fill: float = 0.0,
    layout: Layout = "NCHW",
) -> Array:
    """Rotate each image about its center by a random angle, with bilinear interpolation.

    Args:
        images: a batch; floating point.
        draws: the random numbers of its samples.
        degrees: the angle is uniform in [``-degrees``, ``degrees``], 0 to 180; positive is counter-clockwise.
        fill: the value outside the images; the dtype must be able to hold it.
        layout: ``"NCHW"`` or ``"NHWC"``.

    >>> import numpy as np
    >>> from fastopt.data import augment
    >>> x = np.ones((1, 1, 3, 3))
    >>> augment.rotate(x, augment.Draws([0]), degrees=180.0)[0, 0, 1].round(12)
    array([1., 1., 1.])

    Conventions: torchvision's ``RandomRotation`` with bilinear interpolation.
    """
    x = as_nchw(images, draws, layout, floating=True)
    _check_fill(fill, x)
    angle = (2.0 * draws.uniforms("rotate", 1)[:, 0] - 1.0) * _checks.real(
        "degrees", degrees, "[0, 180]"
    )
    with np.errstate(under="ignore"):
        return permuted(rotate_images(x, angle / 180.0, fill), FROM_NCHW[layout])


def rotate_images(x: Array, half_turns: Any, fill: float) -> Array:
    """Rotate images N, C, H, W counter-clockwise by ``half_turns`` times 180 degrees each."""
    library, dtype = namespace(x), compute_dtype(x)
    cos, sin = (asarray_like(f(half_turns)[:, None, None], x) for f in (cos_pi, sin_pi))
    middle = [(n - 1) / 2 for n in x.shape[2:]]
    down, right = (asarray_like(np.arange(n) - m, x) for n, m in zip(x.shape[2:], middle, strict=True))
    down, right = down[None, :, None], right[None, None, :]
    # The source of each pixel: rotated back by the angle, with rows counted downward.
    source = (sin * right + cos * down + middle[0], cos * right - sin * down + middle[1])
    corner = [library.floor(s) for s in source]
    weight = [library.asarray(s - c, dtype=dtype)[:, None] for s, c in zip(source, corner, strict=True)]
    row, column = (library.asarray(c, dtype=library.int64) for c in corner)
    wide = library.asarray(x, dtype=dtype)
    top, bottom = (
        _gather_pixels(wide, r, column, fill) * (1 - weight[1])
        + _gather_pixels(wide, r, column + 1, fill) * weight[1]
        for r in (row, row + 1)
    )
    return library.asarray(top * (1 - weight[0]) + bottom * weight[0], dtype=x.dtype)


def cutout(
    images: Any, draws: Draws, *, size: int, fill: float = 0.0, layout: Layout = "NCHW"
) -> Array:
    """Overwrite a random square of ``size`` by ``size`` pixels in each image with ``fill``.

    ``images`` may have any dtype. The center of the square is any pixel with equal probability, so that part of
    the square may be outside the image.

    >>> import numpy as np
    >>> from fastopt.data import augment
    >>> x = np.ones((1, 1, 3, 3), np.int8)
    >>> augment.cutout(x, augment.Draws([0], seed=2), size=2)[0, 0]
    array([[1, 0, 0],
           [1, 1, 1],
           [1, 1, 1]], dtype=int8)

    Source: DeVries & Taylor 2017, arXiv:1708.04552.
    """
    x = as_nchw(images, draws, layout)
    _check_fill(fill, x)
    size = _checks.count("size", size, 1)
    u = draws.uniforms("cutout", 2)
    inside = []
    for i, n in enumerate(x.shape[2:]):
        first = _randint(u[:, i], n) - size // 2
        place = np.arange(n)[None, :] - first[:, None]
        inside.append((place >= 0) & (place < size))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    cut = namespace(x).where(asarray_like(hole, x), asarray_like(fill, x, x.dtype), x)
    return permuted(cut, FROM_NCHW[layout])


def _check_fill(fill: Any, x: Array) -> None:
    """Check that ``fill`` is a number that the dtype of ``x`` can hold; floating point may round it."""
    if not isinstance(fill, Real):
        raise TypeError(f"fill must be a number, got {fill!r}")
    name = dtype_name(x)
    # Python's own numbers compare exactly with any integer.
    exact: Any = fill.item() if isinstance(fill, np.generic) else fill
    if is_floating(x):
        fits = abs(exact) <= LARGEST[name] or abs(exact) == inf or exact != exact
    elif name == "bool":
        fits = exact in (0, 1)
    elif np.dtype(name).kind in "iu":
        bounds = np.iinfo(name)
        fits = int(bounds.min) <= exact <= int(bounds.max) and exact == int(exact)
    else:
        return
    if not fits:
        raise ValueError(f"fill is {fill!r}, which images of dtype {name} cannot hold")


def _randint(u: Any, n: int) -> Any:
    """Map numbers in (0, 1) to integers from 0 to n - 1."""
    return np.floor(u * n).astype(np.int64)


def _gather_pixels(x: Array, rows: Array, columns: Array, fill: float) -> Array:
    """Return the pixels (n, c, rows, columns) for each n and c, and ``fill`` outside the image; ``rows`` and
    ``columns`` are (N, H, W) or broadcast to it."""
    library = namespace(x)
    count, channels, height, width = x.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    n = asarray_like(np.arange(count)[:, None, None, None], x)
    c = asarray_like(np.arange(channels)[None, :, None, None], x)
    rows, columns = library.clip(rows, 0, height - 1), library.clip(columns, 0, width - 1)
    pixels = x[n, c, rows[:, None], columns[:, None]]
    return library.where(inside[:, None], pixels, asarray_like(fill, x, x.dtype))
