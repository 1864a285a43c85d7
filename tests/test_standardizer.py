"""Standardized inputs: compared with NumPy's mean and standard deviation, for every axis, in parts, with
constant features and with large means."""

from __future__ import annotations

import pickle
import re
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from array_libraries import each_library
from fastopt._array_api import EXPECTED_FLOATING
from fastopt.data import Standardizer

AXES = {
    "feature": ((50, 4), 1, (0,)),
    "last": ((50, 4), -1, (0,)),
    "channel": ((20, 3, 4, 5), 1, (0, 2, 3)),
    "channel last": ((20, 4, 5, 3), -1, (0, 1, 2)),
    "pixel": ((20, 3, 4, 5), (1, 2, 3), (0,)),
}


def data(shape, dtype=np.float64):
    rng = np.random.default_rng(3)
    return (rng.normal(size=shape) * rng.uniform(0.1, 9, shape[-1]) + 5).astype(dtype)


X = data((10, 2))


@each_library
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("shape", "axis", "summed"), AXES.values(), ids=AXES)
def test_transform_gives_mean_0_and_standard_deviation_1(shape, axis, summed, dtype, library):
    x = data(shape, dtype)
    s = Standardizer(axis).fit(library.array(x))
    z = s.transform(library.array(x))
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(summed, keepdims=True)) / wide.std(summed, keepdims=True)
    assert library.host(z).dtype == dtype
    tolerance = 64 * np.finfo(dtype).eps  # the mean is up to 50 standard deviations
    np.testing.assert_allclose(library.host(z), expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(library.host(s.inverse(z)), x, atol=tolerance * np.abs(x).max())
    assert s.count == x.size // np.prod([n for i, n in enumerate(shape) if i not in summed])


@given(cuts=st.lists(st.integers(0, 50), max_size=6), seed=st.integers(0, 2**32 - 1))
def test_partial_fits_match_one_fit(cuts, seed):
    x = np.random.default_rng(seed).normal(1e3, 1.0, (50, 3))
    parts = Standardizer()
    for part in np.split(x, sorted(cuts)):
        parts.partial_fit(part)
    assert parts.count == 50
    np.testing.assert_allclose(parts.mean, x.mean(0, keepdims=True), rtol=1e-14)
    np.testing.assert_allclose(parts.std, x.std(0, keepdims=True), rtol=1e-11)


def test_large_mean_keeps_the_precision_of_the_deviation():
    """In float32, E[x**2] - E[x]**2 would be 0 or negative here."""
    x = (1e4 + np.random.default_rng(0).normal(size=(4096, 1))).astype(np.float32)
    np.testing.assert_allclose(Standardizer().fit(x).std, x.astype(np.float64).std(), rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30, -1e-30])
@pytest.mark.parametrize("parts", [1, 3])
def test_constant_feature_becomes_zero_and_is_restored_by_inverse(value, parts):
    x = np.full((30, 2), value, np.float32)
    x[:, 1] = np.arange(30)
    s = Standardizer()
    for part in np.split(x, parts):
        s.partial_fit(part)
    z = s.transform(x)
    assert (z[:, 0] == 0).all()
    assert s.std[0, 0] == 1
    np.testing.assert_array_equal(s.inverse(z)[:, 0], x[:, 0])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, ">i4", ml_dtypes.int4])
def test_integers_become_float32(dtype):
    x = np.array([[0, 1], [1, 1], [1, 0]]).astype(dtype)
    z = Standardizer().fit(x).transform(x)
    assert z.dtype == np.float32
    np.testing.assert_array_equal(z, Standardizer().fit(x).transform(x.astype(np.float32)))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_floating_point_keeps_its_dtype(dtype):
    x = data((10, 2)).astype(dtype)
    s = Standardizer().fit(x)
    assert s.transform(x).dtype == s.inverse(x).dtype == dtype


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_swapped_byte_order_becomes_native(dtype):
    x = data((10, 2), dtype)
    swapped = x.astype(np.dtype(dtype).newbyteorder("S"))
    s, expected = Standardizer().fit(swapped), Standardizer().fit(x)
    for found, like in (
        (s.transform(swapped), expected.transform(x)),
        (s.inverse(swapped), expected.inverse(x)),
    ):
        assert found.dtype == dtype
        assert found.dtype.isnative
        np.testing.assert_array_equal(found, like)


OTHER_DTYPES = {
    "complex numbers": X + 1j,
    "long double": X.astype(np.longdouble),
    "objects": X.astype(object),
    "dates": X.astype("M8[s]"),
    "durations": X.astype("m8[s]"),
    "text": X.astype(str),
    "bytes": X.astype("S3"),
    "8 bits": X.astype(ml_dtypes.float8_e4m3fn),
}


@pytest.mark.parametrize("x", OTHER_DTYPES.values(), ids=OTHER_DTYPES)
def test_other_dtypes_raise(x):
    fitted = Standardizer().fit(X)
    message = f"x has dtype {x.dtype}, {EXPECTED_FLOATING}, an integer or bool"
    for use in (Standardizer().fit, fitted.partial_fit, fitted.transform, fitted.inverse):
        with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
            use(x)
    assert fitted.count == 10


def test_negative_axes_and_lists_of_axes():
    x = data((5, 3))
    assert Standardizer(axis=-2).fit(x).mean.shape == (5, 1)
    fitted = Standardizer(axis=[0, 1]).fit(x)
    assert fitted.mean.shape == x.shape
    assert Standardizer(axis=fitted.state_dict()["axis"]).axis == (0, 1)


@each_library
def test_scikit_learn_method_names(library):
    x = library.array(X)
    s = Standardizer()
    z = s.fit_transform(x)
    assert library.host(z).tobytes() == library.host(Standardizer().fit(x).transform(x)).tobytes()
    assert library.host(s.inverse_transform(z)).tobytes() == library.host(s.inverse(z)).tobytes()
    np.testing.assert_allclose(library.host(s.inverse_transform(z)), X, rtol=1e-12)


def test_numpy_errstate_does_not_matter():
    tiny = np.array([[1e-310], [3e-310]])
    with np.errstate(all="raise"):
        assert (Standardizer().fit(tiny).mean == 2e-310).all()
        with pytest.raises(ValueError, match="overflow float64"):
            Standardizer().fit(X * 1e200)
        s = Standardizer().fit(X)
        x = np.full((1, 2), s.mean + 1e-9 * s.std).astype(np.float16)
        assert s.transform(x).dtype == np.float16
        assert s.inverse_transform(np.zeros((1, 2), np.float16)).dtype == np.float16


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fit_uses_memory_for_one_float64_copy(dtype):
    x = data((2**18, 2), dtype)
    before = x.copy()
    tracemalloc.start()
    Standardizer().fit(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.1 * x.size * 8
    np.testing.assert_array_equal(x, before)


def test_repr_shows_axis_and_count():
    assert repr(Standardizer()) == "Standardizer(axis=1, count=0)"
    assert repr(Standardizer((1, 2)).fit(data((4, 3, 2)))) == "Standardizer(axis=(1, 2), count=4)"


def test_fit_resets_and_partial_fit_accumulates():
    a, b = data((10, 2)), data((10, 2)) + 100
    np.testing.assert_array_equal(Standardizer().fit(a).fit(b).mean, Standardizer().fit(b).mean)
    assert (Standardizer().fit(a).partial_fit(b).mean != Standardizer().fit(b).mean).all()


def test_memory_map_can_be_fitted_in_parts(tmp_path):
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(64, 3))
    x[:] = data((64, 3), np.float32)
    s = Standardizer()
    for start in range(0, 64, 10):
        s.partial_fit(x[start : start + 10])
    np.testing.assert_allclose(s.transform(x).std(0), 1, rtol=1e-6)


@each_library
def test_state_dict_resumes_bit_for_bit(library):
    a, b = (library.array(data((10, 2)) + i) for i in (0, 100))
    s, resumed = Standardizer().fit(a), Standardizer()
    resumed.load_state_dict(pickle.loads(pickle.dumps(s.state_dict())))
    for one in (s, resumed):
        one.partial_fit(b)
    assert library.host(s.transform(a)).tobytes() == library.host(resumed.transform(a)).tobytes()
    for one in (Standardizer(), s):
        one.load_state_dict(Standardizer().state_dict())
        assert (one.count, one.mean) == (0, None)


INVALID = {
    "no fit": (lambda: Standardizer().transform(X), ValueError, "the Standardizer is not fitted"),
    "no data": (
        lambda: Standardizer().fit(X[:0]).transform(X),
        ValueError,
        "the Standardizer is not fitted",
    ),
    "an axis": (lambda: Standardizer(2).fit(X), ValueError, "axis 2 is out of range for x with 2 axes"),
    "fractional axis": (
        lambda: Standardizer(0.5),
        TypeError,
        "axis must be an integer or a tuple of integers, got 0.5",
    ),
    "fractional axis in a tuple": (
        lambda: Standardizer((1, 0.5)),
        TypeError,
        r"axis must be an integer or a tuple of integers, got \(1, 0.5\)",
    ),
    "no axes": (lambda: Standardizer(()), ValueError, "axis is empty, expected at least one axis"),
    "features": (
        lambda: Standardizer().fit(X).partial_fit(X[:, :1]),
        ValueError,
        r"x has features of shape \(1, 1\), but the Standardizer was fitted with \(1, 2\)",
    ),
    "features later": (
        lambda: Standardizer().fit(X).transform(X[:, :1]),
        ValueError,
        r"x has features of shape \(1, 1\)",
    ),
    "NaN": (
        lambda: Standardizer().fit(X + np.nan),
        ValueError,
        "x holds NaN or infinities",
    ),
    "infinity": (
        lambda: Standardizer().fit(X + np.inf),
        ValueError,
        "x holds NaN or infinities",
    ),
    "huge numbers": (
        lambda: Standardizer().fit(X * 1e200),
        ValueError,
        "x holds numbers whose squares overflow float64",
    ),
    "huge numbers in parts": (
        lambda: Standardizer().fit(np.full((3, 2), 1e200)).partial_fit(np.full((3, 2), -1e200)),
        ValueError,
        "x holds numbers whose squares overflow float64",
    ),
    "a mask": (
        lambda: Standardizer().fit(np.ma.array(X, mask=X < 0)),
        TypeError,
        "x has a mask, expected a plain array",
    ),
    "a mask later": (
        lambda: Standardizer().fit(X).transform(np.ma.array(X)),
        TypeError,
        "x has a mask, expected a plain array",
    ),
    "a list": (lambda: Standardizer().fit([[1.0]]), TypeError, "x has type list, expected an array"),
    "another's state": (
        lambda: Standardizer(1).load_state_dict(Standardizer(0).state_dict()),
        ValueError,
        "state_dict has axis",
    ),
    "no state": (
        lambda: Standardizer().load_state_dict(None),
        TypeError,
        "state has type NoneType, expected a dict",
    ),
}


@pytest.mark.parametrize(("call", "kind", "message"), INVALID.values(), ids=INVALID)
def test_invalid_arguments_raise(call, kind, message):
    with pytest.raises(kind, match="^" + message):
        call()


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"mean": None}, TypeError, "state_dict's mean has type NoneType, expected an array"),
        (
            {"sum_sq": np.ones(2)},
            ValueError,
            r"state_dict's sum_sq has shape \(2,\), expected \(1, 2\)",
        ),
        (
            {"mean": np.array([["a", "b"]]), "sum_sq": np.array([["a", "b"]])},
            TypeError,
            "state_dict's mean has dtype <U1, expected float16",
        ),
        (
            {"sum_sq": np.full((1, 2), "b")},
            TypeError,
            "state_dict's sum_sq has dtype <U1, expected float16",
        ),
        ({"mean": X[:1] * np.nan}, ValueError, "state_dict's mean holds NaN or infinities"),
        ({"sum_sq": X[:1] + np.inf}, ValueError, "state_dict's sum_sq holds NaN or infinities"),
        ({"sum_sq": np.array([[1.0, -1.0]])}, ValueError, "state_dict's sum_sq holds negative numbers"),
    ],
)
def test_invalid_state_raises_and_changes_nothing(change, kind, message):
    s = Standardizer().fit(X)
    before = s.transform(X)
    with pytest.raises(kind, match="^" + message):
        s.load_state_dict({**s.state_dict(), **change})
    np.testing.assert_array_equal(s.transform(X), before)


@each_library
def test_state_dict_shares_no_arrays(library):
    """Arrays are copied both when the state is returned and when it is loaded."""
    x = library.array(X)
    s, resumed = Standardizer().fit(x), Standardizer()
    before = library.host(s.transform(x)).copy()
    state = s.state_dict()
    resumed.load_state_dict(state)
    for name in ("mean", "sum_sq"):
        state[name][...] = 7.0
    for one in (s, resumed):
        np.testing.assert_array_equal(library.host(one.transform(x)), before)
        np.testing.assert_array_equal(library.host(one.partial_fit(x).transform(x)), before)


def test_rejected_data_changes_nothing():
    s = Standardizer().fit(X)
    before = s.mean.copy()
    for refused in (s.fit, s.partial_fit):
        with pytest.raises(ValueError, match="NaN"):
            refused(X + np.nan)
    assert s.count == 10
    np.testing.assert_array_equal(s.mean, before)
