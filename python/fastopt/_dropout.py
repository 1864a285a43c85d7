"""Dropout as functions; public as part of :mod:`fastopt.functional`."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastopt import _core
from fastopt._array_utils import Array, result_like


class DropoutSaved(NamedTuple):
    """The seed, offset and options of a forward call, which :func:`dropout_backward` needs; no mask.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> _, saved = F.dropout_forward(np.ones((2, 3)), 0.1, seed=7, offset=1)
    >>> saved.seed, saved.offset, saved.p, saved.shape
    (7, 1, 0.1, (2, 3))
    """

    seed: int
    offset: int
    p: float
    training: bool
    scaling: str
    alpha: bool
    channel_axis: int | None
    start: int
    shape: tuple[int, ...]


def dropout_forward(
    x: Array,
    p: float = 0.5,
    *,
    seed: int,
    offset: int = 0,
    training: bool = True,
    scaling: Literal["inverted", "test_time"] = "inverted",
    residual: Array | None = None,
    bias: Array | None = None,
    channel_axis: int | None = None,
    alpha: bool = False,
    start: int = 0,
    out: Array | None = None,
) -> tuple[Array, DropoutSaved]:
    r"""Drop each element with probability :math:`p` and scale the others to preserve the mean.

    .. math:: y_i = r_i + m_i \frac{x_i + b}{1 - p}, \qquad m_i = [\, w_i \ge \text{round}(2^{32} p) \,]

    with the residual :math:`r` and the bias :math:`b` if given. :math:`w_i` is word ``i % 4`` of
    ``philox4x32(seed=seed, offset=offset, index=i // 4)``, where :math:`i` is the row-major index of the
    element. The mask is therefore the same for every layout, dtype and number of threads. A dropped element
    is 0 even if it was NaN or infinite. No mask is saved; the backward pass draws the same words again.

    Args:
        x: any shape and layout; float16, bfloat16, float32 or float64. Only read, unless it is ``out``.
        p: the probability of dropping an element, from 0 to 1; exact at 0 and 1.
        seed, offset: integers in [0, 2**64). Use a different offset for every call, as
            :class:`fastopt.Generator` does.
        training: if ``False``, nothing is dropped and :math:`y = r + x + b`.
        scaling: ``"test_time"`` for the older form: :math:`m (x + b)` in training, and
            :math:`(1 - p)(x + b)` in evaluation.
        residual: added to the result; shape and dtype of ``x``. Its gradient is ``dy``.
        bias: added to ``x``; one value for each index of the last axis, in the dtype of ``x`` or float32. Its
            gradient is ``dx`` summed over all axes but the last.
        channel_axis: drop whole channels: word ``n * channels + c`` decides for index ``n`` of the first axis
            and index ``c`` of this axis.
        alpha: alpha dropout, for SELU: dropped elements become :math:`\alpha' = -1.7581`, then
            :math:`a x + d` with :math:`a = ((1 - p)(1 + p \alpha'^2))^{-1/2}`, :math:`d = -a p \alpha'`
            preserves mean 0 and variance 1.
        start: for a chunk of a larger array, the index of its first element there; with ``channel_axis``,
            of its first channel.
        out: dense array like ``x`` for ``y``. It may be ``x`` or ``residual``; otherwise it must not overlap
            the memory that an input spans, gaps included. By default a new array with the library and layout
            of ``x``.

    Returns:
        ``y``, and what :func:`dropout_backward` needs.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or value; nothing has been written.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> y, saved = F.dropout_forward(np.arange(1.0, 9.0), 0.5, seed=0)
    >>> y
    array([ 0.,  4.,  6.,  8., 10., 12.,  0., 16.])
    >>> F.dropout_backward(np.ones(8), saved)
    array([0., 2., 2., 2., 2., 2., 0., 2.])

    Source: Srivastava et al. 2014; whole channels: Tompson et al. 2015, arXiv:1411.4280; alpha dropout:
    Klambauer et al. 2017, arXiv:1706.02515; words: Salmon et al. 2011, Philox4x32-10.
    """
    y = result_like(x, "x", out)
    shape = _core.dropout_forward(
        x, residual, bias, y, seed, offset, p, training, scaling, alpha, channel_axis, start
    )
    return y, DropoutSaved(
        int(seed), int(offset), float(p), training, scaling, alpha, channel_axis, int(start), shape
    )


def dropout_backward(dy: Array, saved: DropoutSaved, *, out: Array | None = None) -> Array:
    r"""The gradient of :func:`dropout_forward` with respect to ``x``:
    :math:`\partial x_i = m_i \partial y_i / (1 - p)`, or as its options require.

    Args:
        dy: the gradient with respect to ``y``, with the shape of ``x``; any layout, any of the dtypes.
        saved: the second result of the forward call.
        out: dense array like ``dy`` for ``dx``. It may be ``dy``; otherwise it must not overlap the memory
            that ``dy`` spans, gaps included. By default a new array.

    Returns:
        ``dx``. The gradient of the residual is ``dy`` itself, that of the bias ``dx`` summed over all axes
        but the last.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or value; nothing has been written.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> _, saved = F.dropout_forward(np.ones(4), 0.5, seed=0)
    >>> F.dropout_backward(np.array([1.0, 2.0, 3.0, 4.0]), saved)
    array([0., 4., 6., 8.])
    """
    if not isinstance(saved, DropoutSaved):
        raise TypeError(
            f"saved has type {type(saved).__name__}, expected what dropout_forward returned"
        )
    dx = result_like(dy, "dy", out)
    _core.dropout_backward(dy, dx, *saved)
    return dx


def dropout_mask(
    shape: int | tuple[int, ...],
    p: float,
    *,
    seed: int,
    offset: int = 0,
    channel_axis: int | None = None,
    start: int = 0,
) -> NDArray[np.bool_]:
    """Return the mask that :func:`dropout_forward` applies to an array of this shape; ``True`` is kept.

    >>> from fastopt import functional as F
    >>> F.dropout_mask((2, 4), 0.5, seed=0)
    array([[False,  True,  True,  True],
           [ True,  True, False,  True]])
    """
    mask = np.empty(shape, np.bool_)
    _core.dropout_mask(mask, seed, offset, p, channel_axis, start)
    return mask


def philox4x32(*, seed: int, offset: int, index: int) -> tuple[int, int, int, int]:
    """Four random words of 32 bits: Philox4x32-10 with the key (``seed`` low, high) and the counter
    (``offset`` low, high, ``index`` low, high). Dropout uses them for elements
    ``4 * index`` to ``4 * index + 3``.

    >>> from fastopt import functional as F
    >>> [hex(word) for word in F.philox4x32(seed=0, offset=0, index=0)]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']

    Source: Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    return _core.philox4x32(seed, offset, index)
