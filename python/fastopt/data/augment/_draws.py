"""Random numbers per sample, and the checks of all functions on images."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from fastopt import _checks, _random
from fastopt._array_api import as_array, check_floating, namespace, to_numpy
from fastopt._array_utils import Array, compute_dtype_name, is_array

Layout = Literal["NCHW", "NHWC"]

# Permutations of the axes of a layout to N, C, H, W, and back.
TO_NCHW = {"NCHW": (0, 1, 2, 3), "NHWC": (0, 3, 1, 2)}
FROM_NCHW = {"NCHW": (0, 1, 2, 3), "NHWC": (0, 2, 3, 1)}


class Draws:
    """Random numbers for each sample of a batch.

    Args:
        index: the numbers of the samples in the data set: integers (N,) from 0 to 2**32 - 1, an array of any
            library or a sequence.
        seed: 0 to 2**64 - 1.
        epoch: 0 to 2**48 - 1; every epoch has different numbers.

    Each function draws from its own stream, so that one ``Draws`` serves all functions. Two calls of the same
    function draw the same numbers; use a second ``Draws`` with another seed for different ones.

    >>> from fastopt.data import augment
    >>> together, alone = augment.Draws([3, 7], seed=1), augment.Draws([7], seed=1)
    >>> bool((together.uniforms("noise", 5)[1] == alone.uniforms("noise", 5)[0]).all())
    True

    Source: Philox4x32-10, Salmon et al. 2011, doi:10.1145/2063384.2063405; the counter is (stream, epoch,
    sample, place).
    """

    def __init__(self, index: Any, *, seed: int = 0, epoch: int = 0) -> None:
        index = to_numpy(as_array("index", index) if is_array(index) else index)
        if index.shape == (0,):
            index = index.astype(np.int64)  # np.asarray([]) is float64
        self.index = index
        if self.index.ndim != 1 or self.index.dtype.kind not in "iu":
            raise TypeError(
                f"index has shape {self.index.shape} and dtype {self.index.dtype}, expected integers (N,)"
            )
        if self.index.size and not 0 <= self.index.min() <= self.index.max() < 2**32:
            raise ValueError("index has numbers outside [0, 2**32)")
        self.seed = _checks.uint64("seed", seed)
        self.epoch = _random.epoch_number("epoch", epoch)

    def uniforms(self, name: str, n: int) -> Any:
        """Return ``n`` numbers in (0, 1) for each sample, as NumPy float64 (N, n).

        ``name`` is the stream: ``"crop"``, ``"flip horizontal"``, ``"flip vertical"``, ``"rotate"``,
        ``"jitter"``, ``"noise"``, ``"cutout"``, ``"mixup"``, ``"synonyms"``, ``"back-translation"`` or
        ``"minibatches"``; the functions of these names draw from the same one.
        """
        return _random.uniforms(self.seed, self._stream(name), self.index, n)

    def normals(self, name: str, n: int) -> Any:
        """Return ``n`` standard normal numbers for each sample, as :meth:`uniforms` does."""
        return _random.normals(self.seed, self._stream(name), self.index, n)

    def _stream(self, name: str) -> int:
        _checks.choice("name", name, _random.STREAMS)
        return _random.stream(name, self.epoch)

    def __len__(self) -> int:
        return len(self.index)


def as_nchw(images: Any, draws: Draws, layout: str, floating: bool = False) -> Array:
    """Return the images as N, C, H, W, checked against ``draws`` and, if ``floating``, for their dtype."""
    _checks.choice("layout", layout, TO_NCHW)
    images = check_floating("images", images) if floating else as_array("images", images)
    if len(images.shape) != 4:
        raise ValueError(f"images has shape {tuple(images.shape)}, expected 4 axes, {layout}")
    check_draws("images", images, draws)
    return permuted(images, TO_NCHW[layout])


def check_draws(name: str, samples: Any, draws: Draws) -> None:
    if not isinstance(draws, Draws):
        raise TypeError(f"draws has type {type(draws).__name__}, expected augment.Draws")
    if len(samples) != len(draws):
        raise ValueError(f"{name} has {len(samples)} samples, but draws has {len(draws)}")


def permuted(images: Array, axes: tuple[int, ...]) -> Array:
    library = namespace(images)
    return (library.permute_dims if hasattr(library, "permute_dims") else library.transpose)(
        images, axes
    )


def compute_dtype(images: Array) -> Any:
    """Return the dtype in which ``images`` are computed, as a dtype of their library."""
    return getattr(namespace(images), compute_dtype_name(images))
