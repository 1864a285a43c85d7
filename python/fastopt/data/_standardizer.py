"""Inputs with mean 0 and standard deviation 1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastopt import _checks, _state_dict
from fastopt._array_api import (
    EXPECTED_FLOATING,
    as_array,
    asarray_like,
    check_floating,
    copy_array,
    is_floating,
    namespace,
)
from fastopt._array_utils import Array, dtype_name
from fastopt._typing import Self

_INTEGER = re.compile(r"bool|u?int\d+")


class Standardizer:
    r"""Subtract each feature's mean and divide by its standard deviation.

    .. math:: z = \frac{x - \mu}{\sigma}, \qquad \mu = \frac1N \sum_n x_n, \qquad
        \sigma^2 = \frac1N \sum_n (x_n - \mu)^2

    Args:
        axis: the axis, or axes, of the features; statistics are computed over all others. 1, as in BatchNorm,
            is a feature of (N, D) and a channel of (N, C, H, W); -1 a channel of (N, H, W, C); (1, 2, 3) a
            pixel.

    ``fit`` reads the whole set. ``partial_fit`` reads a part of it at a time; the parts are joined by Chan's
    formula

    .. math:: \mu \leftarrow \mu + \delta \frac{m}{n + m}, \qquad
        S \leftarrow S + S_m + \delta^2 \frac{nm}{n + m}, \qquad \delta = \mu_m - \mu

    with :math:`S = n \sigma^2`. Sums are float64 and taken around the first sample. Therefore a constant
    feature has a deviation of exactly 0, which is replaced by 1, so that it becomes 0. ``mean`` and ``std`` (1
    for constant features) are plain attributes, arrays of the data's library with size 1 along the axes that
    were summed over; ``count`` is the number of values summed per feature.

    ``transform`` and ``inverse_transform`` (or ``inverse``) return new arrays of the dtype of ``x``, in native
    byte order, computed in float64 and rounded once; integers and bool become float32. Fit on the training set
    and transform the other sets with the result.

    Raises ``ValueError`` for shapes that do not fit, for NaN or infinities, for numbers whose squares
    overflow float64, and for ``transform`` before any data; ``TypeError`` for other dtypes than float16,
    bfloat16, float32, float64, integers and bool.

    >>> import numpy as np, fastopt
    >>> x = np.array([[1.0, 7.0], [3.0, 7.0]])
    >>> s = fastopt.data.Standardizer().fit(x)
    >>> s.transform(x)
    array([[-1.,  0.],
           [ 1.,  0.]])
    >>> s.inverse_transform(s.transform(x))
    array([[1., 7.],
           [3., 7.]])

    Conventions: scikit-learn's ``StandardScaler`` for (N, D), biased variance. Source: LeCun, Bottou, Orr &
    Müller 1998, Efficient BackProp, section 4.3; Chan, Golub & LeVeque 1983,
    doi:10.1080/00031305.1983.10483115.
    """

    count: int
    mean: Array | None
    std: Array | None

    def __init__(self, axis: int | Sequence[int] = 1) -> None:
        self.axis = _as_axes(axis)
        self._reset()

    def _reset(self) -> None:
        self.count, self.mean, self.std, self._sum_sq = 0, None, None, None

    def fit(self, x: Any) -> Self:
        """Compute the statistics of ``x``; earlier ones are discarded. Returns the Standardizer."""
        before = dict(self.__dict__)
        self._reset()
        try:
            return self.partial_fit(x)
        except BaseException:
            self.__dict__.update(before)
            raise

    def fit_transform(self, x: Any) -> Array:
        """:meth:`fit`, then :meth:`transform`, of the same ``x``."""
        return self.fit(x).transform(x)

    @np.errstate(all="ignore")  # overflow and NaN are reported below
    def partial_fit(self, x: Any) -> Self:
        """Add ``x`` to the statistics: a part of a set that does not fit into memory. Returns the
        Standardizer."""
        x = _real(x)
        library, reduced = namespace(x), self._reduced_axes(x)
        n = 1
        for axis in reduced:
            n *= x.shape[axis]
        if n == 0:
            return self
        first = x[tuple(slice(0, 1) if i in reduced else slice(None) for i in range(len(x.shape)))]
        first = library.asarray(first, dtype=library.float64)
        shifted = library.asarray(x, dtype=library.float64)
        if dtype_name(x) == "float64":
            shifted = shifted - first  # a new array: this one is x
        else:
            shifted -= first
        mean = library.mean(shifted, axis=reduced, keepdims=True)
        shifted -= mean
        shifted *= shifted  # in place where arrays are mutable, so that one copy of x suffices
        sum_sq = library.sum(shifted, axis=reduced, keepdims=True)
        mean, sum_sq = self._merge(n, mean + first, sum_sq)
        if not _is_finite(sum_sq):
            what = "numbers whose squares overflow float64" if _is_finite(x) else "NaN or infinities"
            raise ValueError(f"x holds {what}")
        self._set_stats(self.count + n, mean, sum_sq)
        return self

    def _merge(self, m: int, mean: Array, sum_sq: Array) -> tuple[Array, Array]:
        """Join the statistics so far with those of ``m`` more samples."""
        if self.mean is None:
            return mean, sum_sq
        if mean.shape != self.mean.shape:
            raise ValueError(_unfit(mean.shape, self.mean.shape))
        before, sum_sq_before = (asarray_like(a, mean) for a in (self.mean, self._sum_sq))
        delta, total = mean - before, self.count + m
        joined = sum_sq_before + sum_sq + delta**2 * (self.count * m / total)
        return before + delta * (m / total), joined

    def _set_stats(self, count: int, mean: Array, sum_sq: Array) -> None:
        library = namespace(mean)
        std = library.sqrt(sum_sq / count)
        std = library.where(std > 0.0, std, library.ones_like(std))
        self.count, self.mean, self.std, self._sum_sq = count, mean, std, sum_sq

    def transform(self, x: Any) -> Array:
        """(x - mean) / std, a new array."""
        return self._apply(x, lambda x, mean, std: (x - mean) / std)

    def inverse_transform(self, z: Any) -> Array:
        """z * std + mean, a new array; also under the name ``inverse``."""
        return self._apply(z, lambda z, mean, std: z * std + mean)

    inverse = inverse_transform

    def _apply(self, x: Any, change: Any) -> Array:
        x = _real(x)
        if self.mean is None:
            raise ValueError("the Standardizer is not fitted; call fit() first")
        shape = tuple(1 if i in self._reduced_axes(x) else n for i, n in enumerate(x.shape))
        if shape != tuple(self.mean.shape):
            raise ValueError(_unfit(shape, self.mean.shape))
        library = namespace(x)
        dtype = x.dtype if is_floating(x) else library.float32
        # A loaded state has them on the host.
        stats = (asarray_like(a, x) for a in (self.mean, self.std))
        with np.errstate(under="ignore"):
            result = change(library.asarray(x, dtype=library.float64), *stats)
            return library.asarray(result, dtype=dtype)

    def _reduced_axes(self, x: Array) -> tuple[int, ...]:
        axes = len(x.shape)
        for a in self.axis:
            if not -axes <= a < axes:
                raise ValueError(f"axis {a} is out of range for x with {axes} axes")
        return tuple(i for i in range(axes) if i not in {a % axes for a in self.axis})

    def state_dict(self) -> dict[str, Any]:
        """Return copies of the statistics, for :meth:`load_state_dict`."""
        stats = {"mean": self.mean, "sum_sq": self._sum_sq}
        copies = {name: None if a is None else copy_array(a) for name, a in stats.items()}
        return {"axis": list(self.axis), "count": self.count, **copies}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state returned by :meth:`state_dict`; its arrays are copied. Raises ``ValueError`` or
        ``TypeError`` if it does not fit; nothing is changed then."""
        _state_dict.check_identity(state, {"axis": list(self.axis)})
        _state_dict.check_keys(state, ("count", "mean", "sum_sq"))
        count = _checks.count("count", state["count"])
        if not count:
            self._reset()
            return
        mean, sum_sq = (_read_stat(f"state_dict's {name}", state[name]) for name in ("mean", "sum_sq"))
        _state_dict.check_same_shape_dtype("sum_sq", sum_sq, mean)
        if bool(namespace(sum_sq).any(sum_sq < 0.0)):
            raise ValueError("state_dict's sum_sq holds negative numbers, expected sums of squares")
        self._set_stats(count, mean, sum_sq)

    def __repr__(self) -> str:
        return f"Standardizer(axis={self.axis if len(self.axis) > 1 else self.axis[0]}, count={self.count})"


def _as_axes(axis: int | Sequence[int]) -> tuple[int, ...]:
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    try:
        axes = tuple(_checks.integer("axis", a) for a in axes)
    except TypeError:
        raise TypeError(f"axis must be an integer or a tuple of integers, got {axis!r}") from None
    if not axes:
        raise ValueError("axis is empty, expected at least one axis")
    return axes


def _unfit(found: Sequence[int], expected: Sequence[int]) -> str:
    return f"x has features of shape {tuple(found)}, but the Standardizer was fitted with {tuple(expected)}"


def _real(x: Any) -> Array:
    x = as_array("x", x)
    if isinstance(x, np.ndarray) and not x.dtype.isnative:
        x = x.astype(x.dtype.newbyteorder("="))
    if not (is_floating(x) or _INTEGER.fullmatch(dtype_name(x))):
        raise TypeError(f"x has dtype {x.dtype}, {EXPECTED_FLOATING}, an integer or bool")
    return x


def _read_stat(name: str, array: Any) -> Array:
    """Validate and copy an array of a state."""
    array = copy_array(check_floating(name, array), "float64")
    if not _is_finite(array):
        raise ValueError(f"{name} holds NaN or infinities")
    return array


def _is_finite(x: Array) -> bool:
    library = namespace(x)
    return bool(library.all(library.isfinite(x)))
