"""Reference BatchNorm in float64, written for readability: Ioffe & Szegedy 2015, Algorithm 1 and section 3.
The channel axis is axis 1; sums are exact.

Each result comes with the largest of the terms that were summed: where terms cancel, the remaining error is the
rounding of a term (see ``before`` in tolerance.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


def add_up(x: np.ndarray) -> np.ndarray:
    """The sum of each channel of ``x``."""
    columns = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)
    return np.array([math.fsum(column) for column in columns])


def upright(v: np.ndarray | float | None, x: np.ndarray, absent: float) -> np.ndarray:
    """Per-channel values, reshaped to broadcast against ``x``."""
    return np.reshape(absent if v is None else v, (1, -1) + (1,) * (x.ndim - 2))


@dataclass
class Forward:
    x: np.ndarray
    gamma: np.ndarray | None
    mean: np.ndarray
    var: np.ndarray
    invstd: np.ndarray
    y: np.ndarray
    y_terms: np.ndarray
    constant: bool  # statistics that do not depend on x


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (divided by n) of each channel."""
    n = x.size // x.shape[1]
    mean = add_up(x) / n
    return mean, add_up((x - upright(mean, x, 0)) ** 2) / n


def reach(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """For each channel, |mean| plus the largest distance of a value from the mean."""
    middle = upright(mean, x, 0.0)
    axes = tuple(d for d in range(x.ndim) if d != 1)
    return abs(middle) + abs(x - middle).max(axes, keepdims=True, initial=0.0)


def forward(x, gamma=None, beta=None, *, given=None, eps=1e-5, residual=None, relu=False, doubt=0.0):
    """Normalize with the ``given`` statistics (mean, variance), or with those of ``x``. ``doubt``: the relative
    error of the mean, with respect to |mean| plus the largest distance from it."""
    mean, var = moments(x) if given is None else given
    invstd = 1 / np.sqrt(var + eps)
    scale = upright(gamma, x, 1.0) * upright(invstd, x, 1.0)
    centred = x - upright(mean, x, 0.0)
    shift, extra = upright(beta, x, 0.0), 0.0 if residual is None else residual
    y = centred * scale + shift + extra
    unsure = doubt * reach(x, mean) * abs(scale)
    terms = np.max(
        [abs(centred * scale), abs(shift + 0 * x), abs(extra + 0 * x), unsure + 0 * x], axis=0
    )
    return Forward(
        x, gamma, mean, var, invstd, np.maximum(y, 0) if relu else y, terms, given is not None
    )


def follow(old, batch, momentum, mode="update"):
    """A running statistic, updated with one more batch."""
    if mode == "keep":
        return momentum * old + (1 - momentum) * batch
    return (1 - momentum) * old + momentum * batch


@dataclass
class Backward:
    dx: np.ndarray
    dx_terms: np.ndarray
    dgamma: np.ndarray
    dgamma_terms: np.ndarray
    dbeta: np.ndarray
    dbeta_terms: np.ndarray


def backward(f: Forward, dy: np.ndarray, *, count=None, sums=None, doubt=0.0) -> Backward:
    """``dy`` is the gradient behind ReLU. For part of a batch, pass the whole batch's count and sums."""
    centred = f.x - upright(f.mean, f.x, 0.0)
    n = dy.size // dy.shape[1] if count is None else count
    sum_dy, products = (add_up(dy), add_up(dy * centred)) if sums is None else sums
    size_dy, size_products = add_up(abs(dy)), add_up(abs(dy * centred))
    scale = upright(f.gamma, f.x, 1.0) * upright(f.invstd, f.x, 0.0)
    terms = [abs(dy)]
    dx = dy
    if not f.constant:
        slope, most = (upright(f.invstd**2 * s / n, f.x, 0.0) for s in (products, size_products))
        dx = dy - upright(sum_dy / n, f.x, 0.0) - centred * slope
        unsure = doubt * reach(f.x, f.mean) * most
        terms += [upright(size_dy / n, f.x, 0.0) + 0 * dy, abs(centred * most), unsure + 0 * dy]
    unsure = doubt * reach(f.x, f.mean).ravel() * size_dy
    return Backward(
        dx * scale,
        np.max(terms, axis=0) * abs(scale),
        products * f.invstd,
        np.maximum(size_products, unsure) * f.invstd,
        sum_dy,
        size_dy,
    )
