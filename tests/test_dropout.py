"""Dropout computes its formulas bit for bit, compared with a NumPy reference, also at the ends of p and for
non-finite values, and backward is the derivative of forward."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

import reference_dropout as reference
from fastopt import functional as F
from layouts import FOREIGN, memory_of
from optimizers_table import DTYPES, bits, values

SHAPE = (3, 5, 7, 11)  # 1155 elements: nine tiles and a remainder
SEED = {"seed": 0x0123456789ABCDEF, "offset": 5}

# Every form of the formula of an element.
FORMS = {
    "inverted": {},
    "test time": {"scaling": "test_time"},
    "alpha": {"alpha": True},
    "evaluation": {"training": False},
    "evaluation, test time": {"training": False, "scaling": "test_time"},
    "evaluation, alpha": {"training": False, "alpha": True},
}
# In the last two, the bias has x's dtype or float32.
EXTRAS = ["nothing", "residual", "bias", "both", "float32 bias"]
P = [0.0, 1e-12, 0.1, 0.5, 0.999, 1.0]


def extras(name, dtype, shape=SHAPE):
    found = {}
    if name in ("residual", "both"):
        found["residual"] = values(shape, dtype, seed=1)
    if name in ("bias", "both"):
        found["bias"] = values(shape[-1], dtype, seed=2)
    if name == "float32 bias":
        found["bias"] = values(shape[-1], np.float32, seed=2)
    return found


@pytest.mark.parametrize("p", P)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("extra", EXTRAS)
def test_forward_matches_the_formula_bit_for_bit(extra, form, dtype, p, isa):
    x, added = values(SHAPE, DTYPES[dtype]), extras(extra, DTYPES[dtype])
    before = bits(x)
    y, _ = F.dropout_forward(x, p, **SEED, **FORMS[form], **added)
    keep = reference.mask(SHAPE, p, **SEED)
    assert bits(y) == bits(reference.forward(x, keep, p, **FORMS[form], **added))
    assert bits(x) == before


@pytest.mark.parametrize("columns", [1, 2, 3, 127, 128, 129, 300])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bias_of_any_length_and_layout(dtype, columns, isa):
    x = values((1155 // columns + 1, columns), DTYPES[dtype])
    keep = reference.mask(x.shape, 0.3, **SEED)
    for bias in (values(columns, DTYPES[dtype]), values(columns), values(3 * columns)[::-3]):
        y, _ = F.dropout_forward(x, 0.3, **SEED, bias=bias)
        assert bits(y) == bits(reference.forward(x, keep, 0.3, bias=bias))


# ---- whole channels ----


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("start", [0, 3, 2**40 + 1])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        *(((3, 5, 7, 11), axis) for axis in (1, 2, 3, -1, -3)),
        *(((2, 3, 20, 31), axis) for axis in (1, -1)),
        ((4, 300), 1),
        ((2, 1000, 3), 1),
        ((2, 3, 1000), 2),
        ((300, 1, 5), 1),
    ],
)
def test_whole_channels(shape, axis, start, alpha, isa):
    options = {**SEED, "channel_axis": axis, "start": start}
    keep = reference.mask(shape, 0.4, **options)
    np.testing.assert_array_equal(F.dropout_mask(shape, 0.4, **options), keep)
    x = values(shape)
    y, saved = F.dropout_forward(x, 0.4, alpha=alpha, **options)
    assert bits(y) == bits(reference.forward(x, keep, 0.4, alpha=alpha))
    dx = F.dropout_backward(x, saved)
    np.testing.assert_array_equal(dx != 0, keep)


def test_a_channel_is_kept_or_dropped_whole():
    mask = F.dropout_mask((40, 30, 6, 6), 0.5, seed=3, channel_axis=1)
    per_channel = mask.reshape(40, 30, 36)
    assert (per_channel == per_channel[:, :, :1]).all()
    np.testing.assert_array_equal(per_channel[:, :, 0], F.dropout_mask((40, 30), 0.5, seed=3))


# ---- the ends of p, and non-finite values ----

SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["inverted", "test time", "alpha", "evaluation"])
def test_p_0_changes_no_bit(form, dtype, isa):
    x = np.array(SPECIAL * 100, DTYPES[dtype])
    y, saved = F.dropout_forward(x, 0.0, seed=1, **FORMS[form])
    assert bits(y) == bits(x)
    assert bits(F.dropout_backward(x, saved)) == bits(x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["inverted", "test time", "alpha", "evaluation, test time"])
def test_p_1_gives_zeros_for_any_input(form, dtype, isa):
    x = np.array(SPECIAL * 100, DTYPES[dtype])
    y, saved = F.dropout_forward(x, 1.0, seed=1, **FORMS[form])
    assert bits(y) == bits(np.zeros_like(x))
    assert bits(F.dropout_backward(x, saved)) == bits(np.zeros_like(x))
    y, _ = F.dropout_forward(x, 1.0, seed=1, residual=np.ones_like(x), **FORMS[form])
    assert bits(y) == bits(np.ones_like(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_dropped_nonfinite_elements_are_zero_and_kept_ones_unchanged(value, dtype, isa):
    """The product of an infinity and a mask would be NaN."""
    x = np.full(1000, value, DTYPES[dtype])
    keep = F.dropout_mask(1000, 0.5, seed=1)
    y, saved = F.dropout_forward(x, 0.5, seed=1)
    for found in (y, F.dropout_backward(x, saved)):
        np.testing.assert_array_equal(found[keep].astype(float), np.full(keep.sum(), value))
        assert bits(found[~keep]) == bits(np.zeros((~keep).sum(), DTYPES[dtype]))


# ---- backward ----


@pytest.mark.parametrize("p", P)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("axis", [None, 1])
def test_backward_is_the_derivative(axis, form, p):
    """For a fixed mask forward is linear, so its difference along any direction is exact up to rounding."""
    options = {**SEED, **FORMS[form], "channel_axis": axis}
    x, t = values(SHAPE, np.float64), values(SHAPE, np.float64, seed=3)
    y, saved = F.dropout_forward(x, p, **options)
    moved, _ = F.dropout_forward(x + t, p, **options)
    dx = F.dropout_backward(t, saved)
    size = abs(y).max() + abs(moved).max()
    np.testing.assert_allclose(moved - y, dx, rtol=0, atol=4 * np.finfo(float).eps * size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_backward_matches_the_formula_bit_for_bit(form, dtype, isa):
    """The result has the gradient's own dtype, which may differ from forward's."""
    _, saved = F.dropout_forward(values(SHAPE), 0.3, **SEED, **FORMS[form])
    dy = values(SHAPE, DTYPES[dtype], seed=4)
    keep = reference.mask(SHAPE, 0.3, **SEED)
    scale, _, _ = reference.constants(0.3, **FORMS[form])
    f = reference.compute_dtype(dy.dtype).type
    expected = dy.astype(f) * f(scale)
    if FORMS[form].get("training", True):
        expected = np.where(keep, expected, f(0))
    assert bits(F.dropout_backward(dy, saved)) == bits(expected.astype(dy.dtype))


def test_saved_holds_only_numbers_and_can_be_pickled():
    x = values((1000, 3))
    _, saved = F.dropout_forward(x, np.float64(0.25), seed=np.uint64(7), offset=2, channel_axis=-1)
    assert saved == (7, 2, 0.25, True, "inverted", False, -1, 0, (1000, 3))
    assert [type(v) for v in saved[:3]] == [int, int, float]
    assert len(pickle.dumps(saved)) < 300
    again = pickle.loads(pickle.dumps(saved))
    assert bits(F.dropout_backward(x, again)) == bits(F.dropout_backward(x, saved))
    with pytest.raises(AttributeError):
        saved.seed = 8


# ---- alpha dropout ----


@pytest.mark.parametrize("p", [0.05, 0.2, 0.5, 0.9])
def test_alpha_dropout_keeps_mean_and_variance(p):
    """For standard normal input, within five standard errors; that of the variance is bounded by the
    kurtosis."""
    n = 4_000_000
    y, _ = F.dropout_forward(values(n, np.float64), p, seed=5, alpha=True)
    assert abs(y.mean()) < 5 / math.sqrt(n)
    kurtosis = ((y - y.mean()) ** 4).mean() / y.var() ** 2
    assert abs(y.var() - 1) < 5 * math.sqrt((kurtosis - 1) / n)


# ---- arrays of other libraries ----


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_arrays(kind):
    x = values(1000)
    expected, saved = F.dropout_forward(x, 0.3, seed=1)
    dx = F.dropout_backward(x, saved)
    foreign = FOREIGN[kind](x.copy())
    y, saved = F.dropout_forward(foreign, 0.3, seed=1)
    assert bits(np.asarray(y)) == bits(expected)
    assert bits(np.asarray(F.dropout_backward(foreign, saved))) == bits(dx)
    F.dropout_forward(foreign, 0.3, seed=1, out=foreign)
    assert memory_of(foreign).tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_torch_tensors_give_torch_tensors_of_their_layout(torch, dtype):
    x = values((2, 3, 4, 5), DTYPES[dtype])
    expected, _ = F.dropout_forward(x, 0.3, seed=1)
    tensor = torch.from_numpy(x.astype(np.float64)).to(getattr(torch, dtype))
    for own in (tensor, tensor.to(memory_format=torch.channels_last)):
        y, saved = F.dropout_forward(own, 0.3, seed=1)
        assert (type(y), y.dtype, y.stride()) == (type(own), own.dtype, own.stride())
        np.testing.assert_array_equal(y.double().numpy(), expected.astype(np.float64))
        assert F.dropout_backward(own, saved).stride() == own.stride()


def test_rate_and_mean_agree_with_torch(torch):
    """torch uses another generator, but the distribution is the same."""
    x = np.ones(1_000_000, np.float32)
    ours, _ = F.dropout_forward(x, 0.3, seed=1)
    theirs = torch.nn.functional.dropout(torch.from_numpy(x), 0.3).numpy()
    assert set(np.unique(ours)) == set(np.unique(theirs))
    assert abs(ours.mean(dtype=float) - theirs.mean(dtype=float)) < 5 * math.sqrt(
        2 * 0.3 / 0.7 / x.size
    )
