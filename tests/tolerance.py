"""The table of tolerances, and the measure of errors in ULPs.

A step is compared with a float64 step *from the same stored state*, so errors do not accumulate over steps and
the bounds do not grow with the number of steps. The unit is the ULP of the larger of the values before and
after the step: where the terms of a sum cancel, the error is a rounding of the terms, not of the result.

Derivation of the bounds: narrowing to 16 bits rounds once, by half an ULP, and float32 adds next to nothing to
that. In float32 and float64 a gradient is rounded up to eight times by scale, clip and penalties, half an ULP
each; squaring doubles these errors, and the moment adds four. That is ten ULPs if all errors have the same
sign; they do not, and the largest error observed in float32 is 4.6. A float64 reference has as many errors of
its own, hence twice that.
"""

from __future__ import annotations

import numpy as np
from ml_dtypes import bfloat16, finfo

ULPS = {"float16": 0.51, "bfloat16": 0.51, "float32": 6.0, "float64": 12.0}

DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}


def wide(array) -> np.ndarray:
    """The values in float64, which represents those of every dtype exactly."""
    with np.errstate(invalid="ignore"):  # from signaling NaNs
        return np.asarray(array).astype(np.float64)


def ulp(x, dtype) -> np.ndarray:
    """The distance between adjacent numbers of ``dtype`` at ``x``; it is constant for subnormal numbers."""
    info = finfo(dtype)
    _, exponent = np.frexp(np.abs(wide(x)))
    exponent = np.maximum(exponent - 1, info.minexp)
    return np.ldexp(1.0, exponent - info.nmant)


def errors(actual, expected, before=None) -> np.ndarray:
    """The elementwise distance of ``actual`` from the float64 ``expected``, in ULPs of its dtype. NaN and
    infinities have distance 0 from themselves and infinite distance from everything else."""
    dtype = np.asarray(actual).dtype
    got, want = wide(actual), wide(expected)
    size = np.abs(want) if before is None else np.maximum(np.abs(want), np.abs(wide(before)))
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    finite = np.isfinite(got) & np.isfinite(want)
    distance = np.full(got.shape, np.inf)
    distance[same] = 0.0
    left = finite & ~same
    distance[left] = np.abs(got[left] - want[left]) / ulp(size[left], dtype)
    return distance


def assert_close(actual, expected, before=None, *, what="", steps=1) -> None:
    """Check the error against the table. ``steps`` multiplies the bound where roundings of steps add up."""
    off = errors(actual, expected, before)
    name = np.asarray(actual).dtype.name
    assert off.max(initial=0.0) <= ULPS[name] * steps, (
        f"{what}: {off.max():.2f} ULPs of {name} at {np.unravel_index(off.argmax(), off.shape)}, "
        f"allowed {ULPS[name] * steps}"
    )
