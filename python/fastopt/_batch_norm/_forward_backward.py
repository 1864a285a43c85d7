"""Forward and backward pass over a whole batch."""

from __future__ import annotations

from typing import Any, Literal

from fastopt import _core
from fastopt._array_utils import Array, empty_like, result_like
from fastopt._batch_norm._options import batch_index, forward_options
from fastopt._batch_norm._types import (
    BatchNormGrads,
    BatchNormResidualGrads,
    BatchNormSums,
    Grads,
)


def batch_norm_forward(
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    *,
    training: bool = True,
    momentum: float | None = 0.1,
    momentum_mode: Literal["update", "keep"] = "update",
    eps: float = 1e-5,
    axis: int = 1,
    unbiased: bool = True,
    single_value: Literal["error", "zero_var"] = "error",
    batch: int | None = None,
    residual: Array | None = None,
    activation: Literal["relu"] | None = None,
    out: Array | None = None,
) -> tuple[Array, _core.BatchNormSaved]:
    r"""Normalize every channel of a batch, then scale, shift, add and activate, in one pass:

    .. math::
        y = \mathrm{activation}\Bigl(\gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta
            + \mathrm{residual}\Bigr)

    In training :math:`\mu` and :math:`\sigma^2` (over :math:`n`, not :math:`n - 1`) are those of the batch,
    over all axes except the channel axis, and the running statistics are updated with them. In evaluation they
    are the running statistics, which are only read.

    Args:
        x: (N, C), (N, C, L), (N, C, H, W), ...; with ``axis=-1`` channels come last. float16, bfloat16,
            float32 or float64. Statistics are computed in float64, the rest in float32 or, for float64, in
            float64. It may be strided, but its fastest-varying axis must be contiguous.
        gamma, beta: shape (C,), any of these dtypes; None for 1 and 0.
        running_mean, running_var: shape (C,), any of these dtypes; written in place in training.
        training: whether to normalize by the statistics of the batch.
        momentum: :math:`m` in the update of the running statistics, :math:`(1 - m)\,\mathrm{old} +
            m\,\mathrm{batch}` (torch, cuDNN). None for the average of all batches so far, which requires
            ``batch``, the 1-based index of this batch.
        momentum_mode: ``"keep"`` for :math:`m\,\mathrm{old} + (1 - m)\,\mathrm{batch}` (Keras, flax, ONNX).
        eps: :math:`\epsilon`, 0 or more.
        axis: the channel axis.
        unbiased: whether the running variance is divided by :math:`n - 1` (torch, cuDNN) or by :math:`n`
            (Keras, flax, ONNX).
        single_value: with one value per channel in training, raise an error (``"error"``) or use variance 0
            (``"zero_var"``).
        residual: added before the activation; shape, dtype and memory order of ``x``.
        activation: ``"relu"``, or None.
        out: array for ``y``: dense, with shape, dtype and memory order of ``x``. It may be ``residual`` or, if
            no backward pass follows, ``x``; otherwise it must not overlap the memory that an input spans,
            gaps included.

    Returns:
        ``y``, and what :func:`batch_norm_backward` needs: ``x`` itself, which must not be changed before,
        statistics of each channel, and for ReLU a mask of one bit per element, padded to whole bytes per
        channel or, if channels come last, per row.

    Raises:
        TypeError, ValueError: an array or option that does not fit; nothing has been written.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> y, saved = F.batch_norm_forward(x, eps=0.0)
    >>> y
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> saved.mean
    array([ 2., 20.])

    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 1.
    """
    options = forward_options(
        training, momentum, momentum_mode, eps, axis, unbiased, single_value, activation
    )
    if running_mean is None and not training:
        raise ValueError("training=False takes running_mean and running_var, got None")
    index = batch_index(batch, momentum, running_mean, running_var)
    y = result_like(x, "x", out)
    return y, _core.batch_norm_forward(
        options, x, y, gamma, beta, running_mean, running_var, residual, None, index
    )


def batch_norm_backward(dy: Array, saved: _core.BatchNormSaved, *, out: Array | None = None) -> Grads:
    r"""Gradients of :func:`batch_norm_forward`. With :math:`k = 1 / \sqrt{\sigma^2 + \epsilon}`, sums over the
    :math:`n` values of a channel, and ``dy`` set to 0 where the output of ReLU was 0:

    .. math::
        d\beta &= \textstyle\sum dy, \qquad d\gamma = k \sum dy\,(x - \mu) \\
        dx &= \gamma k \Bigl(dy - \frac{d\beta}{n} - (x - \mu)\,k^2\,\frac{\sum dy\,(x - \mu)}{n}\Bigr)
            \quad \text{after training} \\
        dx &= \gamma k\,dy \quad \text{after evaluation}

    Args:
        dy: shape, dtype and memory order of ``x``; only read.
        saved: the second result of the forward pass; reusable, unless ``out`` was ``x``.
        out: array for ``dx``; it may be ``dy`` or ``x``.

    Returns:
        A :class:`BatchNormGrads`: ``dx``; ``dgamma`` and ``dbeta`` in the dtypes of ``gamma`` and ``beta``, or
        None. With a residual, a :class:`BatchNormResidualGrads`, which has ``dresidual``, too.

    Raises:
        TypeError, ValueError: an array that does not fit, or an ``x`` that an earlier pass has overwritten.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> x = np.array([[1.0], [3.0]])
    >>> y, saved = F.batch_norm_forward(x, gamma=np.array([2.0]), eps=0.0)
    >>> grads = F.batch_norm_backward(np.array([[1.0], [0.0]]), saved)
    >>> grads.dx
    array([[0.],
           [0.]])
    >>> grads.dgamma
    array([-1.])

    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.
    """
    return backward(dy, saved, None, out)


def backward(
    dy: Array, saved: _core.BatchNormSaved, sums: BatchNormSums | None, out: Array | None
) -> Grads:
    """Run the backward pass with these sums or, if None, with those of ``dy``."""
    check_saved(saved)
    x, gamma, beta = saved.x, saved.gamma, saved.beta
    like = dy if x is None else x
    dx = result_like(like, "dy", out)
    dgamma = None if gamma is None else empty_like(gamma)
    dbeta = None if beta is None else empty_like(beta)
    dresidual = _residual_grad(dy, saved, like, out) if saved.has_residual else None
    to_write = None if dresidual is dy else dresidual
    _core.batch_norm_backward(dy, saved, dx, dgamma, dbeta, to_write, sums)
    if dresidual is None:
        return BatchNormGrads(dx, dgamma, dbeta)
    return BatchNormResidualGrads(dx, dgamma, dbeta, dresidual)


def _residual_grad(dy: Array, saved: _core.BatchNormSaved, like: Array, out: Array | None) -> Array:
    """Return the array for the residual's gradient: ``dy``, unless ReLU masks it or ``dx`` overwrites it."""
    if saved.has_relu or (out is not None and _core.batch_norm_overwrites(dy, out)):
        return result_like(like, "dy")
    return dy


def check_saved(saved: Any) -> None:
    if not isinstance(saved, _core.BatchNormSaved):
        raise TypeError(f"saved has type {type(saved).__name__}, expected what a forward pass returned")
