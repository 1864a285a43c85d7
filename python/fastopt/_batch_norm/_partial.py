"""Batch normalization over parts of a batch, as in data-parallel training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar

import numpy as np

from fastopt import _checks, _core
from fastopt._array_utils import Array, result_like
from fastopt._batch_norm._forward_backward import backward, check_saved
from fastopt._batch_norm._options import batch_index, forward_options
from fastopt._batch_norm._types import BatchMoments, BatchNormSums, Grads

Statistics = TypeVar("Statistics", BatchMoments, BatchNormSums)


def _read_stats(kind: type[Statistics], name: str, stats: Any) -> Statistics:
    """Check statistics, which may be a plain tuple, and convert their values to float64."""
    fields = kind._fields
    if not isinstance(stats, tuple):
        raise TypeError(f"{name} has type {type(stats).__name__}, expected {kind.__name__}")
    if len(stats) != len(fields):
        raise TypeError(f"{name} has length {len(stats)}, expected {len(fields)} ({', '.join(fields)})")
    return kind._make(
        _check_count(f"{name}.n", value) if field == "n" else _as_float64(f"{name}.{field}", value)
        for field, value in zip(fields, stats, strict=True)
    )


def _check_count(name: str, value: Any) -> float:
    """Return a number of values as a float, so that it can be summed together with other statistics."""
    n = _checks.scalar(name, value)
    if not (n >= 0.0 and n.is_integer()):
        raise ValueError(f"{name} must be a number of values, an integer of 0 or more, got {value!r}")
    return n


def _as_float64(name: str, values: Any) -> np.ndarray:
    try:
        column = np.asarray(values)
        if not np.iscomplexobj(column):  # NumPy would only warn that it drops the imaginary part
            return column.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{name} must hold real numbers, got {values!r}")


def batch_norm_moments(x: Array, *, axis: int = 1) -> BatchMoments:
    """Compute the statistics of ``x``, a part of a batch; :func:`batch_norm_join` joins them.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> F.batch_norm_moments(np.array([[1.0, 5.0], [3.0, 5.0]]))
    BatchMoments(n=2.0, mean=array([2., 5.]), m2=array([2., 0.]))
    """
    return BatchMoments(*_core.batch_moments(x, _checks.axis(axis)))


def batch_norm_join(parts: Sequence[BatchMoments]) -> BatchMoments:
    r"""Join the statistics of parts of a batch, in a binary tree over their indices, so that the result depends
    only on their order:

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
    stats = [_read_stats(BatchMoments, f"parts[{i}]", part) for i, part in enumerate(parts)]
    if not stats:
        raise ValueError("parts is empty, expected the statistics of at least one part")
    return BatchMoments(*_core.batch_moments_join(stats))


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
    """:func:`batch_norm_forward` in training, with ``moments`` instead of the statistics of ``x``. All else is
    the same; with the statistics of ``x`` the results are bitwise identical.

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
    index = batch_index(batch, momentum, running_mean, running_var)
    stats = _read_stats(BatchMoments, "moments", moments)
    y = result_like(x, "x", out)
    return y, _core.batch_norm_forward(
        options, x, y, gamma, beta, running_mean, running_var, residual, stats, index
    )


def batch_norm_backward_reduce(dy: Array, saved: _core.BatchNormSaved) -> BatchNormSums:
    """Compute the sums of the backward pass over a part of a batch; only reads.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> y, saved = F.batch_norm_forward(np.array([[1.0], [3.0]]))
    >>> F.batch_norm_backward_reduce(np.array([[1.0], [0.5]]), saved)
    BatchNormSums(dy=array([1.5]), dy_centered=array([-0.5]))
    """
    check_saved(saved)
    return BatchNormSums(*_core.batch_norm_reduce(dy, saved))


def batch_norm_backward_apply(
    dy: Array, saved: _core.BatchNormSaved, sums: BatchNormSums, *, out: Array | None = None
) -> Grads:
    """:func:`batch_norm_backward` with ``sums`` instead of the sums of ``dy``; ``dgamma`` and ``dbeta`` are
    then the gradients of the whole batch.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> dy = np.array([[1.0], [0.5], [0.0]])
    >>> y, saved = F.batch_norm_forward(np.array([[1.0], [3.0], [8.0]]))
    >>> sums = F.batch_norm_backward_reduce(dy, saved)
    >>> grads = F.batch_norm_backward_apply(dy, saved, sums)
    >>> bool((grads.dx == F.batch_norm_backward(dy, saved).dx).all())
    True
    """
    return backward(dy, saved, _read_stats(BatchNormSums, "sums", sums), out)
