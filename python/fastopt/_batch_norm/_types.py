"""Return types of the functions of batch normalization."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastopt._array_utils import Array


class BatchMoments(NamedTuple):
    """Statistics of each channel: the number ``n`` of values, their mean, and the sum ``m2`` of squared
    deviations from it; float64 arrays of shape (C,).

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
    r"""Sums of the backward pass over each channel, :math:`\sum dy` and :math:`\sum dy\,(x - \mu)`; float64
    arrays of shape (C,). The sums of a batch are those of its parts added up.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> y, saved = F.batch_norm_forward(np.array([[1.0], [3.0]]))
    >>> a = F.batch_norm_backward_reduce(np.array([[1.0], [1.0]]), saved)
    >>> F.BatchNormSums(*(one + other for one, other in zip(a, a, strict=True)))
    BatchNormSums(dy=array([4.]), dy_centered=array([0.]))
    """

    dy: np.ndarray
    dy_centered: np.ndarray


class BatchNormGrads(NamedTuple):
    """Gradients of a BatchNorm; None for a ``gamma`` or ``beta`` that was not passed.

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
    """Gradients of a BatchNorm with a residual. Without an activation ``dresidual`` is ``dy`` itself or, if
    ``dx`` overwrites it, a copy.

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


# One of these two, depending on the value of `saved`, not its type. A union could be unpacked neither into
# three names nor into four.
Grads = Any
