"""Augmentation that changes values: color jitter, noise and mixup."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastopt import _checks
from fastopt._array_api import asarray_like, check_floating, namespace, take_rows
from fastopt._array_utils import Array
from fastopt._ieee_math import cos_pi, exp, log
from fastopt.data.augment._draws import (
    FROM_NCHW,
    Draws,
    Layout,
    as_nchw,
    check_draws,
    compute_dtype,
    permuted,
)

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: the brightness of red, green and blue


def jitter(
    images: Any,
    draws: Draws,
    *,
    brightness: float = 0.2,
    contrast: float = 0.2,
    saturation: float = 0.2,
    limits: tuple[float, float] | None = (0.0, 1.0),
    layout: Layout = "NCHW",
) -> Array:
    r"""Change the brightness, contrast and saturation of each image at random.

    For each property a factor :math:`f` is drawn, uniform in :math:`[\max(0, 1 - s), 1 + s]` with the strength
    :math:`s` of that name. They are applied in this order:

    - brightness: :math:`x \leftarrow f x`;
    - contrast: :math:`x \leftarrow f x + (1 - f) \bar g`, with the mean gray value :math:`\bar g` of the image;
    - saturation: :math:`x \leftarrow f x + (1 - f) g`, with the gray value
      :math:`g = 0.299 R + 0.587 G + 0.114 B` of the pixel.

    Args:
        images: a batch with 3 channels or, if ``saturation`` is 0, with any number of channels (whose mean is
            the gray value); floating point.
        draws: the random numbers of its samples.
        brightness, contrast, saturation: the strengths, 0 or more.
        limits: the range (low, high) to which the result is clipped; ``None`` for no clipping, as standardized
            images need.
        layout: ``"NCHW"`` or ``"NHWC"``.

    >>> import numpy as np
    >>> from fastopt.data import augment
    >>> x = np.full((1, 3, 1, 1), 0.5)
    >>> augment.jitter(x, augment.Draws([0])).ravel().round(3)
    array([0.59, 0.59, 0.59])

    Conventions: torchvision's ``ColorJitter`` (which also draws the order and can change the hue). Source:
    Krizhevsky, Sutskever & Hinton 2012, section 4.1, for the idea.
    """
    x = as_nchw(images, draws, layout, floating=True)
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    spread = np.array([_checks.real(name, s, "[0, inf)") for name, s in strengths.items()])
    channels = x.shape[1]
    if limits is not None:
        limits = _limits(limits)
    if saturation and channels != 3:
        raise ValueError(f"images has {channels} channels, but saturation needs 3; pass saturation=0")
    library, dtype = namespace(x), compute_dtype(x)
    low, high = np.maximum(1.0 - spread, 0.0), 1.0 + spread
    factors = low + (high - low) * draws.uniforms("jitter", 3)
    brightness_factor, contrast_factor, saturation_factor = (
        asarray_like(f[:, None, None, None], x, dtype) for f in factors.T
    )
    weights = np.array(LUMA) if channels == 3 else np.full(channels, 1.0 / max(channels, 1))
    luma = asarray_like(weights[None, :, None, None], x, dtype)

    with np.errstate(under="ignore"):
        y = library.asarray(x, dtype=dtype) * brightness_factor
        mean = library.mean(_grayscale(y, luma), axis=(2, 3), keepdims=True)
        y = y * contrast_factor + mean * (1 - contrast_factor)
        if saturation:
            y = y * saturation_factor + _grayscale(y, luma) * (1 - saturation_factor)
        if limits is not None:
            y = library.clip(y, *limits)
        return permuted(library.asarray(y, dtype=x.dtype), FROM_NCHW[layout])


def _limits(pair: Any) -> tuple[float, float]:
    given = enumerate(_checks.pair("limits", pair))
    low, high = (_checks.real(f"limits[{i}]", limit, "[-inf, inf]") for i, limit in given)
    if low > high:
        raise ValueError(f"limits must be (low, high) with low <= high, got {pair!r}")
    return low, high


def _grayscale(x: Array, luma: Array) -> Array:
    return namespace(x).sum(x * luma, axis=1, keepdims=True)


def noise(images: Any, draws: Draws, *, std: float = 0.1) -> Array:
    """Add Gaussian noise of mean 0 and standard deviation ``std`` to each element.

    Args:
        images: a batch of samples of any shape, along the first axis; floating point.
        draws: the random numbers of its samples. They are drawn on the host, in about 60 ns each.
        std: 0 or more.

    >>> import numpy as np
    >>> from fastopt.data import augment
    >>> augment.noise(np.zeros((1, 3)), augment.Draws([0]), std=0.5).round(3)
    array([[-0.251,  0.31 , -0.38 ]])

    Source: Goodfellow, Bengio & Courville 2016, section 7.5.
    """
    x = check_floating("images", images)
    check_draws("images", x, draws)
    std = _checks.real("std", std, "[0, inf)")
    each = int(np.prod(x.shape[1:]))
    library, dtype = namespace(x), compute_dtype(x)
    with np.errstate(under="ignore"):
        numbers = (std * draws.normals("noise", each)).reshape(tuple(x.shape))
        noisy = library.asarray(x, dtype=dtype) + asarray_like(numbers, x, dtype)
        return library.asarray(noisy, dtype=x.dtype)


def mixup(
    x: Any, y: Any, draws: Draws, *, others: tuple[Any, Any], alpha: float = 0.2
) -> tuple[Array, Array]:
    r"""Mix each sample and its target with another sample and its target,

    .. math:: \tilde x = \lambda x + (1 - \lambda) x', \qquad \tilde y = \lambda y + (1 - \lambda) y', \qquad
        \lambda \sim \text{Beta}(\alpha, \alpha)

    Args:
        x: samples (N, ...), floating point.
        y: targets (N, ...), floating point; classes are one-hot.
        draws: the random numbers of the samples.
        others: ``(x, y)`` of the whole training set or of a part of it, from which :math:`(x', y')` are drawn;
            memory maps are allowed. (Most implementations mix a batch with a permutation of itself; the result
            then depends on the batch.)
        alpha: above 0; small values mix little, and 1 is uniform.

    Returns:
        ``(x, y)``, new arrays of the same dtypes.

    >>> import numpy as np
    >>> from fastopt.data import augment
    >>> x, y = np.array([[0.0], [8.0]]), np.eye(2)
    >>> mixed, target = augment.mixup(x, y, augment.Draws([0, 1], seed=4), others=(x, y), alpha=1.0)
    >>> mixed.round(3), target.round(3)
    (array([[2.164],
           [1.91 ]]), array([[0.73 , 0.27 ],
           [0.761, 0.239]]))

    Source: Zhang, Cisse, Dauphin & Lopez-Paz 2018, arXiv:1710.09412. The factor is
    :math:`\frac12 (1 + t / \sqrt{2\alpha + t^2})` with Student's :math:`t` of :math:`2 \alpha` degrees of
    freedom, drawn as in Bailey 1994, doi:10.1090/S0025-5718-1994-1219702-4.
    """
    alpha = _checks.real("alpha", alpha, "(0, inf)")
    other_x, other_y = _checks.pair("others", others)
    pairs = _mixable("x", x, "others[0]", other_x, draws), _mixable("y", y, "others[1]", other_y, draws)
    count, count_y = (len(other) for _, other in pairs)
    if count != count_y:
        raise ValueError(f"others[1] has {count_y} samples, but others[0] has {count}")
    if len(draws) and not count:
        raise ValueError("others has no samples, expected one or more to mix with")
    u = draws.uniforms("mixup", 3)
    partner = np.floor(u[:, 2] * count).astype(np.int64)
    with np.errstate(under="ignore"):
        share = symmetric_beta(alpha, u[:, 0], u[:, 1])
        mixed_x, mixed_y = (_blend(a, take_rows(other, partner), share) for a, other in pairs)
    return mixed_x, mixed_y


def _mixable(name: str, array: Any, other_name: str, other: Any, draws: Draws) -> tuple[Array, Array]:
    """Check samples, or their targets, and those to mix them with."""
    array, other = check_floating(name, array), check_floating(other_name, other)
    check_draws(name, array, draws)
    found, expected = tuple(other.shape[1:]), tuple(array.shape[1:])
    if found != expected:
        raise ValueError(f"{other_name} has samples of shape {found}, but {name} has {expected}")
    return array, other


def symmetric_beta(alpha: float, u: Any, v: Any) -> Any:
    """Draw from Beta(alpha, alpha) with two uniform numbers each, without rejection."""
    s, c = exp(log(u) / alpha), cos_pi(2.0 * v)
    t = c * np.sqrt((1.0 - s) / (s + (1.0 - s) * c * c))
    return 0.5 + 0.5 * np.clip(t, -1.0, 1.0)  # rounding could exceed the range


def _blend(a: Array, b: Array, share: Any) -> Array:
    library, dtype = namespace(a), compute_dtype(a)
    a_wide, b_wide = (library.asarray(x, dtype=dtype) for x in (a, b))
    share = asarray_like(share.reshape(-1, *[1] * (len(a.shape) - 1)), a, dtype)
    return library.asarray(b_wide + (a_wide - b_wide) * share, dtype=a.dtype)
