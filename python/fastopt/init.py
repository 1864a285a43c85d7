r"""Initial weights: random, so that units differ from the start, and scaled so that signals keep their size.

>>> import fastopt
>>> generator = fastopt.Generator(seed=1)
>>> w1 = fastopt.init.he_normal((64, 100), generator=generator)
>>> w2 = fastopt.init.xavier_uniform((100, 10), generator=generator)

With :math:`m` inputs and :math:`n` outputs of a unit's layer (:func:`fans`), all functions take

- ``shape``: two axes or more, see ``layout``;
- ``generator``: a :class:`fastopt.Generator`, of which each call takes one offset, or the seed for a new one.
  Equal seeds give equal random numbers, so share one generator between layers or give each its own seed;
- ``gain``: a factor for the nonlinearity that follows the layer, see :func:`gain`;
- ``layout``: ``"in_out"`` for weights (..., in, out), as in ``x @ w`` and in Keras and flax; ``"out_in"`` for
  (out, in, ...), as in torch. The axes in place of the dots are a convolution's window;
- ``dtype``: the dtype of the result, by name or as a NumPy dtype; ``None`` is float32;
- ``like``: an array whose library and device the result has; NumPy by default.

Values are computed in float64 from Philox's bits with IEEE operations alone, and then rounded: once to float32
or float16, and to bfloat16 through float32. They are the same on every machine and for every library; dtypes
differ only by that rounding. Wrong values raise ``ValueError``, wrong types ``TypeError``; such a call takes no
offset.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod, sqrt
from typing import Any, Literal, TypedDict

import numpy as np

from fastopt import _checks, _random
from fastopt._array_api import EXPECTED_FLOATING, FLOATING_DTYPES, as_array, asarray_like, ml_dtype
from fastopt._array_utils import Array
from fastopt._generator import Generator
from fastopt._typing import Unpack

__all__ = ["fans", "gain", "he_normal", "he_uniform", "xavier_normal", "xavier_uniform"]

Layout = Literal["in_out", "out_in"]

GAINS = {
    "linear": 1.0,
    "sigmoid": 1.0,
    "tanh": 5.0 / 3.0,
    "relu": sqrt(2.0),
    "selu": 0.75,
}


class InitOptions(TypedDict, total=False):
    """Options of all initializers."""

    layout: Layout
    dtype: Any
    like: Any


def gain(nonlinearity: str, negative_slope: float = 0.01) -> float:
    r"""Return the factor that keeps the scale of signals through a nonlinearity: 1 for ``"linear"`` and
    ``"sigmoid"``, 5/3 for ``"tanh"``, :math:`\sqrt 2` for ``"relu"``, :math:`\sqrt{2 / (1 + a^2)}` for
    ``"leaky_relu"`` with the slope :math:`a`, 3/4 for ``"selu"``.

    >>> import fastopt
    >>> fastopt.init.gain("leaky_relu", negative_slope=1.0)
    1.0

    Conventions: torch's ``calculate_gain``.
    """
    if nonlinearity == "leaky_relu":
        slope = _checks.real("negative_slope", negative_slope)
        return sqrt(2.0 / (1.0 + slope * slope))
    return GAINS[_checks.choice("nonlinearity", nonlinearity, (*GAINS, "leaky_relu"))]


def fans(shape: tuple[int, ...], layout: Layout = "in_out") -> tuple[int, int]:
    """Return the inputs and outputs :math:`(m, n)` of a unit: for a convolution, channels times window size.

    >>> import fastopt
    >>> fastopt.init.fans((64, 100))
    (64, 100)
    >>> fastopt.init.fans((16, 3, 5, 5), layout="out_in")
    (75, 400)
    """
    _checks.choice("layout", layout, ("in_out", "out_in"))
    shape = _as_shape(shape)
    if layout == "in_out":
        *window, inputs, outputs = shape
    else:
        outputs, inputs, *window = shape
    return inputs * prod(window), outputs * prod(window)


def xavier_uniform(
    shape: tuple[int, ...],
    *,
    generator: Generator | int,
    gain: float = 1.0,
    **options: Unpack[InitOptions],
) -> Array:
    r"""Uniform in :math:`\pm g \sqrt{6 / (m + n)}`, for tanh and sigmoid.

    >>> import fastopt
    >>> w = fastopt.init.xavier_uniform((2, 4), generator=fastopt.Generator(1))
    >>> w.shape, w.dtype, bool(abs(w).max() <= 1)
    ((2, 4), dtype('float32'), True)

    Conventions: torch's ``xavier_uniform_``, Keras's ``GlorotUniform``. Source: Glorot & Bengio 2010,
    equation 16.
    """
    return _initialize("uniform", shape, generator, gain, 6.0, "both", options)


def xavier_normal(
    shape: tuple[int, ...],
    *,
    generator: Generator | int,
    gain: float = 1.0,
    **options: Unpack[InitOptions],
) -> Array:
    r"""Normal with variance :math:`2 g^2 / (m + n)`, for tanh and sigmoid.

    >>> import fastopt
    >>> w = fastopt.init.xavier_normal((200, 200), generator=fastopt.Generator(1))
    >>> round(float(w.var()) * 200, 1)
    1.0

    Conventions: torch's ``xavier_normal_``; Keras and flax truncate the distribution at two deviations.
    Source: Glorot & Bengio 2010, equation 12.
    """
    return _initialize("normal", shape, generator, gain, 2.0, "both", options)


def he_uniform(
    shape: tuple[int, ...],
    *,
    generator: Generator | int,
    gain: float = GAINS["relu"],
    fan: Literal["in", "out"] = "in",
    **options: Unpack[InitOptions],
) -> Array:
    r"""Uniform in :math:`\pm g \sqrt{3 / m}`, that is :math:`\pm \sqrt{6 / m}` for ReLU's gain; with
    ``fan="out"``, :math:`n` in place of :math:`m`.

    >>> import fastopt
    >>> w = fastopt.init.he_uniform((6, 50), generator=fastopt.Generator(1))
    >>> bool(0.9 < abs(w).max() <= 1)
    True

    Conventions: torch's ``kaiming_uniform_(nonlinearity="relu")``, Keras's ``HeUniform``. Source: He,
    Zhang, Ren & Sun 2015, arXiv:1502.01852.
    """
    _checks.choice("fan", fan, ("in", "out"))
    return _initialize("uniform", shape, generator, gain, 3.0, fan, options)


def he_normal(
    shape: tuple[int, ...],
    *,
    generator: Generator | int,
    gain: float = GAINS["relu"],
    fan: Literal["in", "out"] = "in",
    **options: Unpack[InitOptions],
) -> Array:
    r"""Normal with variance :math:`g^2 / m`, that is :math:`2 / m` for ReLU's gain; with ``fan="out"``,
    :math:`n` in place of :math:`m`.

    >>> import fastopt
    >>> w = fastopt.init.he_normal((200, 200), generator=fastopt.Generator(1))
    >>> round(float(w.var()) * 200, 1)
    2.0

    Conventions: torch's ``kaiming_normal_(nonlinearity="relu")``; Keras and flax truncate the distribution at
    two standard deviations. Source: He, Zhang, Ren & Sun 2015, equation 10, arXiv:1502.01852.
    """
    _checks.choice("fan", fan, ("in", "out"))
    return _initialize("normal", shape, generator, gain, 1.0, fan, options)


def _as_shape(shape: Iterable[int]) -> tuple[int, ...]:
    if not isinstance(shape, Iterable):
        raise TypeError(f"shape must be a sequence of sizes, got {shape!r}")
    shape = tuple(_checks.count(f"shape[{i}]", n) for i, n in enumerate(shape))
    if len(shape) < 2:
        raise ValueError(f"shape is {shape}, expected two axes or more")
    return shape


def _as_generator(generator: Generator | int) -> Generator:
    if isinstance(generator, Generator):
        return generator
    try:
        return Generator(_checks.uint64("generator", generator))
    except TypeError:
        kind = type(generator).__name__
        raise TypeError(
            f"generator has type {kind}, expected fastopt.Generator or an integer seed"
        ) from None


def _initialize(
    kind: str,
    shape: tuple[int, ...],
    generator: Generator | int,
    gain: float,
    variance: float,
    fan: str,
    options: InitOptions,
) -> Array:
    """Draw numbers of scale g sqrt(variance / fan), which is m, n or, for ``"both"``, m + n."""
    shape = _as_shape(shape)
    m, n = fans(shape, options.get("layout", "in_out"))
    units = max({"in": m, "out": n, "both": m + n}[fan], 1)  # any scale will do for an empty array
    scale = _checks.real("gain", gain, "[0, inf)") * sqrt(variance / units)
    _checks.option_names("an initializer", options, InitOptions.__annotations__)
    generator = _as_generator(generator)
    values = np.empty(shape, _dtype(options.get("dtype")))
    like = options.get("like")
    template = values if like is None else as_array("like", like)
    offset = generator.next_offset()
    try:
        with np.errstate(under="ignore"):  # rounding to a subnormal number is no error
            _random.fill(values.reshape(-1), kind, scale, generator.key, offset)
        return asarray_like(values, template)
    except Exception:
        generator._undo_next_offset(offset)
        raise


def _dtype(dtype: Any) -> np.dtype[Any]:
    dtype = "float32" if dtype is None else dtype
    try:
        by_name = isinstance(dtype, str) and dtype == "bfloat16"
        found: np.dtype[Any] = ml_dtype(dtype) if by_name else np.dtype(dtype)
    except TypeError:
        raise TypeError(
            f"dtype is {dtype!r}, {EXPECTED_FLOATING}, by name or as a NumPy dtype"
        ) from None
    if found.name not in FLOATING_DTYPES:
        raise TypeError(f"dtype is {found}, {EXPECTED_FLOATING}")
    return found
