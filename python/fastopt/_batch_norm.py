"""Batch normalisation, forward and backward; public as part of :mod:`fastopt.functional`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from fastopt import _checks, _core
from fastopt._params import Array, empty_like, result_like


class BatchMoments(NamedTuple):
    """Statistics of each channel: over ``n`` values, the mean and the sum of squared deviations from
    it; arrays of shape (C,), float64.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> moments = F.batch_norm_moments(np.array([[1.0], [3.0]]))
    >>> moments.m2 / moments.n  # the variance
    array([1.])
    """

    n: float
    mean: np.ndarray
    m2: np.ndarray


class BatchNormSums(NamedTuple):
    r"""What the backward pass sums over each channel, :math:`\sum dy` and :math:`\sum dy\,(x - \mu)`; arrays
    of shape (C,), float64. Those of the parts of a batch add up.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> y, saved = F.batch_norm_forward(np.array([[1.0], [3.0]]))
    >>> a = F.batch_norm_backward_reduce(np.array([[1.0], [1.0]]), saved)
    >>> F.BatchNormSums(*(one + other for one, other in zip(a, a, strict=True)))
    BatchNormSums(dy=array([4.]), dy_centred=array([0.]))
    """

    dy: np.ndarray
    dy_centred: np.ndarray


class BatchNormGrads(NamedTuple):
    """Gradients of a BatchNorm; None for a ``gamma`` or ``beta`` that was not there.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> y, saved = F.batch_norm_forward(np.array([[1.0], [3.0]]), beta=np.zeros(1))
    >>> dx, dgamma, dbeta = F.batch_norm_backward(np.array([[1.0], [2.0]]), saved)
    >>> dgamma is None, dbeta
    (True, array([3.]))
    """

    dx: Array
    dgamma: Array | None
    dbeta: Array | None


class BatchNormResidualGrads(NamedTuple):
    """Gradients of a BatchNorm with a residual. Without an activation ``dresidual`` is ``dy`` itself.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> x, dy = np.array([[1.0], [3.0]]), np.array([[5.0], [7.0]])
    >>> y, saved = F.batch_norm_forward(x, residual=x, activation="relu")
    >>> F.batch_norm_backward(dy, saved).dresidual
    array([[5.],
           [7.]])
    """

    dx: Array
    dgamma: Array | None
    dbeta: Array | None
    dresidual: Array


# One of these two. Which one, `saved` knows and its type does not; a union of both could be unpacked neither
# into three names nor into four.
Grads = Any

Statistics = TypeVar("Statistics", BatchMoments, BatchNormSums)


def forward_options(*given: Any) -> _core.BatchNormOptions:
    """Options, checked once for each combination that is in use."""
    try:
        return _checked_options(*given)
    except TypeError:  # also of what has no hash, whose name is still to be said
        pass
    return _checked_options.__wrapped__(*given)


@lru_cache(maxsize=256, typed=True)
def _checked_options(
    training: bool,
    momentum: float | None,
    momentum_mode: str,
    eps: float,
    axis: int,
    unbiased: bool,
    single_value: str,
    activation: str | None,
) -> _core.BatchNormOptions:
    _checks.choice("momentum_mode", momentum_mode, ("update", "keep"))
    _checks.choice("single_value", single_value, ("error", "zero_var"))
    _checks.choice("activation", activation, (None, "relu"))
    keep = take = None
    if momentum is not None:
        m = _checks.real("momentum", momentum, "[0, 1]")
        keep, take = (1.0 - m, m) if momentum_mode == "update" else (m, 1.0 - m)
    return _core.BatchNormOptions(
        not _checks.switch("training", training),
        keep,
        take,
        _checks.switch("unbiased", unbiased),
        single_value == "zero_var",
        _checks.real("eps", eps, "[0, inf)"),
        _checks.axis(axis),
        activation == "relu",
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
    r"""Normalise every channel of a batch, then scale, shift, add and activate, in the same pass:

    .. math::
        y = \mathrm{activation}\Bigl(\gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta
            + \mathrm{residual}\Bigr)

    In training :math:`\mu` and :math:`\sigma^2` (over :math:`n`, not :math:`n - 1`) are the batch's, taken over
    all axes but the channels'; the running statistics follow them. In evaluation they are the running
    ones, which stay as they are.

    Args:
        x: (N, C), (N, C, L), (N, C, H, W), ...; with ``axis=-1`` channels come last. float16, bfloat16,
            float32 or float64; statistics are float64, the rest is computed in float32 or, for float64, in
            float64. It may be strided, as long as the elements of its fastest axis lie side by side.
        gamma, beta: shape (C,), of any of these dtypes; None for 1 and 0.
        running_mean, running_var: likewise; in training written in place.
        training: whether to normalise by the batch's statistics.
        momentum: :math:`m` in the running statistics' update, :math:`(1 - m)\,\mathrm{old} +
            m\,\mathrm{batch}` (torch, cuDNN). None: the average of all batches so far; ``batch`` says how
            many there are with this one.
        momentum_mode: ``"keep"`` for :math:`m\,\mathrm{old} + (1 - m)\,\mathrm{batch}` (Keras, flax, ONNX).
        eps: :math:`\epsilon`, 0 or more.
        axis: where the channels are.
        unbiased: whether the running variance is that over :math:`n - 1` (torch, cuDNN) or over :math:`n`
            (Keras, flax, ONNX).
        single_value: training on one value a channel is an error, or that value's variance is 0.
        residual: added before the activation; of x's shape and dtype, in its order in memory.
        activation: ``"relu"``, or None.
        out: where to write ``y``: of x's shape and dtype, dense, in its order in memory. It may be ``residual``
            or, where nothing has to go back, ``x``.

    Returns:
        ``y``, and what :func:`batch_norm_backward` needs: ``x`` itself, which must stay as it is until then,
        numbers for each channel, and for ReLU a bit an element.

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
    number = _number_of(batch, momentum, running_mean, running_var)
    y = result_like(x, "x", out)
    return y, _core.batch_norm_forward(
        options, x, y, gamma, beta, running_mean, running_var, residual, None, number
    )


def _number_of(
    batch: int | None, momentum: float | None, running_mean: Array | None, running_var: Array | None
) -> int:
    """The number of this batch, where running statistics need it."""
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var go together: give both or neither")
    if momentum is not None or running_mean is None:
        return 1
    if batch is None:
        raise ValueError("momentum=None averages over all batches and needs batch=, their number")
    return _checks.count("batch", batch, least=1)


def batch_norm_backward(dy: Array, saved: _core.BatchNormSaved, *, out: Array | None = None) -> Grads:
    r"""Gradients of :func:`batch_norm_forward`. With :math:`k = 1 / \sqrt{\sigma^2 + \epsilon}`, sums over the
    :math:`n` values of a channel, and ``dy`` set to 0 where ReLU let nothing pass:

    .. math::
        d\beta &= \textstyle\sum dy, \qquad d\gamma = k \sum dy\,(x - \mu) \\
        dx &= \gamma k \Bigl(dy - \frac{d\beta}{n} - (x - \mu)\,k^2\,\frac{\sum dy\,(x - \mu)}{n}\Bigr)
            \quad \text{after training} \\
        dx &= \gamma k\,dy \quad \text{after evaluation}

    Args:
        dy: of x's shape and dtype, in its order in memory; only read.
        saved: from the forward pass; may be used again.
        out: where to write ``dx``; it may be ``dy`` or ``x``.

    Returns:
        A :class:`BatchNormGrads`: ``dx``; ``dgamma`` and ``dbeta`` in the dtypes of ``gamma`` and ``beta``, or
        None. With a residual, a :class:`BatchNormResidualGrads`: ``dresidual`` too.

    Raises:
        TypeError, ValueError: an array that does not fit, or an ``x`` that the forward pass has overwritten.

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
    return _backward(dy, saved, None, out)


def _backward(
    dy: Array, saved: _core.BatchNormSaved, sums: BatchNormSums | None, out: Array | None
) -> Grads:
    _check_saved(saved)
    x, gamma, beta, has_residual = saved.x, saved.gamma, saved.beta, saved.has_residual
    like = dy if x is None else x
    dx = result_like(like, "dy", out)
    dgamma = None if gamma is None else empty_like(gamma)
    dbeta = None if beta is None else empty_like(beta)
    masked = result_like(like, "dy") if has_residual and saved.has_relu else None
    _core.batch_norm_backward(dy, saved, dx, dgamma, dbeta, masked, sums)
    if not has_residual:
        return BatchNormGrads(dx, dgamma, dbeta)
    return BatchNormResidualGrads(dx, dgamma, dbeta, dy if masked is None else masked)


def _check_saved(saved: Any) -> None:
    if not isinstance(saved, _core.BatchNormSaved):
        raise TypeError(f"saved has type {type(saved).__name__}, expected what a forward pass returned")


# ---- the pieces, for whoever has a part of the batch ----


def _read(kind: type[Statistics], name: str, given: Any) -> Statistics:
    """Statistics as they are computed with; a plain tuple does, too."""
    if not isinstance(given, tuple) or len(given) != len(kind._fields):
        raise TypeError(f"{name} has type {type(given).__name__}, expected {kind.__name__}")
    return kind._make(
        _checks.number(f"{name}.n", value) if field == "n" else _column(f"{name}.{field}", value)
        for field, value in zip(kind._fields, given, strict=True)
    )


def _column(name: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must hold numbers, got {values!r}") from None


def batch_norm_moments(x: Array, *, axis: int = 1) -> BatchMoments:
    """The local statistics of ``x``, from which :func:`batch_norm_join` makes those of a whole batch.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> F.batch_norm_moments(np.array([[1.0, 5.0], [3.0, 5.0]]))
    BatchMoments(n=2.0, mean=array([2., 5.]), m2=array([2., 0.]))
    """
    return BatchMoments(*_core.batch_moments(x, _checks.axis(axis)))


def batch_norm_join(parts: Sequence[BatchMoments]) -> BatchMoments:
    r"""Join the statistics of parts of a batch, in a binary tree over their index, so that the result depends
    on their order alone:

    .. math::
        \mu = \mu_a + \delta\,\frac{n_b}{n}, \qquad M = M_a + M_b + \delta^2\,\frac{n_a n_b}{n}, \qquad
        \delta = \mu_b - \mu_a

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> x = np.array([[1.0], [3.0], [8.0]])
    >>> F.batch_norm_join([F.batch_norm_moments(x[:2]), F.batch_norm_moments(x[2:])])
    BatchMoments(n=3.0, mean=array([4.]), m2=array([26.]))

    Source: Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", equation 2.1.
    """
    if not isinstance(parts, Iterable):
        raise TypeError(f"parts has type {type(parts).__name__}, expected a list of BatchMoments")
    read = [_read(BatchMoments, f"parts[{i}]", part) for i, part in enumerate(parts)]
    if not read:
        raise ValueError("parts is empty, expected the statistics of at least one part")
    return BatchMoments(*_core.batch_moments_join(read))


def batch_norm_apply(
    x: Array,
    moments: BatchMoments,
    gamma: Array | None = None,
    beta: Array | None = None,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    *,
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
    """:func:`batch_norm_forward` in training, with these statistics instead of x's own. Everything else is as
    there; its own statistics give the same bits.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> x = np.array([[1.0], [3.0], [8.0]])
    >>> whole = F.batch_norm_join([F.batch_norm_moments(x[:2]), F.batch_norm_moments(x[2:])])
    >>> y, saved = F.batch_norm_apply(x[:2], whole, eps=0.0)
    >>> y.round(3)
    array([[-1.019],
           [-0.34 ]])
    """
    options = forward_options(
        True, momentum, momentum_mode, eps, axis, unbiased, single_value, activation
    )
    number = _number_of(batch, momentum, running_mean, running_var)
    given = _read(BatchMoments, "moments", moments)
    y = result_like(x, "x", out)
    return y, _core.batch_norm_forward(
        options, x, y, gamma, beta, running_mean, running_var, residual, given, number
    )


def batch_norm_backward_reduce(dy: Array, saved: _core.BatchNormSaved) -> BatchNormSums:
    """The sums that the backward pass needs of a whole batch, over this part of it; only reads.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> y, saved = F.batch_norm_forward(np.array([[1.0], [3.0]]))
    >>> F.batch_norm_backward_reduce(np.array([[1.0], [0.5]]), saved)
    BatchNormSums(dy=array([1.5]), dy_centred=array([-0.5]))
    """
    _check_saved(saved)
    return BatchNormSums(*_core.batch_norm_reduce(dy, saved))


def batch_norm_backward_apply(
    dy: Array, saved: _core.BatchNormSaved, sums: BatchNormSums, *, out: Array | None = None
) -> Grads:
    """:func:`batch_norm_backward` with these sums instead of dy's own; ``dgamma`` and ``dbeta`` are then of all
    that was summed.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> dy = np.array([[1.0], [0.5], [0.0]])
    >>> y, saved = F.batch_norm_forward(np.array([[1.0], [3.0], [8.0]]))
    >>> sums = F.batch_norm_backward_reduce(dy, saved)
    >>> grads = F.batch_norm_backward_apply(dy, saved, sums)
    >>> bool((grads.dx == F.batch_norm_backward(dy, saved).dx).all())
    True
    """
    return _backward(dy, saved, _read(BatchNormSums, "sums", sums), out)
