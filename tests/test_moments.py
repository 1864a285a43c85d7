"""Batch statistics: exact to rounding for any mean, finite and never negative for finite values, and summed in
one fixed tree."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference_reductions as reductions
from batch_norm_cases import FORMS
from fastopt import functional as F
from reference_reductions import PLANE_BLOCK, ROW_BLOCK
from tolerance import DTYPES

EPS = 2.0**-52
LAYOUTS = {"planes": False, "rows": True}


def columns(values: np.ndarray, rows: bool) -> np.ndarray:
    """Return three channels with the same values, interleaved (rows) or one after the other (planes)."""
    return np.repeat(values[:, None], 3, 1) if rows else np.repeat(values[None, None], 3, 1)


def moments_of(values: np.ndarray, rows: bool) -> tuple[float, float]:
    found = F.batch_norm_moments(columns(values, rows))
    assert found.n == len(values)
    assert (found.mean == found.mean[0]).all()
    assert (found.m2 == found.m2[0]).all()
    return found.mean[0], found.m2[0]


def exact(values: np.ndarray) -> tuple[float, float]:
    """Return mean and sum of squared deviations, rounded only at the end."""
    terms = [Fraction(float(v)) for v in values]
    mean = sum(terms) / len(terms)
    return float(mean), float(sum((t - mean) ** 2 for t in terms))


# ---- accuracy ----

# Fifty powers of ten: from values whose squares overflow float32 to values whose squares underflow.
SPREADS = [(0.0, 1.0), (1e4, 1.0), (-1e6, 1.0), (1e30, 1e29), (1e30, 1e24), (1e-20, 1e-22), (3.0, 0.0)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("mean", "std"), SPREADS)
@pytest.mark.parametrize("count", [1, 2, 17, 129, 5000])
def test_moments_against_exact_sums(count, mean, std, dtype, layout, isa):
    values = (mean + std * np.random.default_rng(5).standard_normal(count)).astype(dtype)
    mu, m2 = moments_of(values, LAYOUTS[layout])
    true_mu, true_m2 = exact(values)
    # A value goes through at most 300 additions, taken about a value of its own block. The means of the blocks
    # are doubles: their rounding errors, relative to a large mean, enter when blocks are joined.
    reach = float(np.abs(values.astype(np.float64) - values[0]).max())
    assert mu == pytest.approx(true_mu, rel=EPS, abs=300 * EPS * reach)
    assert m2 == pytest.approx(true_m2, rel=1200 * EPS, abs=count * reach * EPS * abs(true_mu))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_large_mean_keeps_float32_precision(layout):
    """The mean of squares minus the square of the mean would be 0.0 or negative here."""
    values = np.float32(1e4) + np.random.default_rng(7).standard_normal(20_000).astype(np.float32)
    _, m2 = moments_of(values, LAYOUTS[layout])
    variance = exact(values)[1] / len(values)
    assert 0.9 < variance < 1.1
    assert np.float32(m2 / len(values)) == np.float32(variance)


# ---- finite and never negative ----

HARD_VALUES = {
    "constant": lambda n: np.full(n, 0.1),
    "constant, huge": lambda n: np.full(n, -3e38),
    "constant, tiny": lambda n: np.full(n, 1e-45),
    "almost constant": lambda n: np.nextafter(
        np.full(n, 1e4, "f4"), np.arange(n, dtype="f4") % 2 * 1e5
    ),
    "outlier first": lambda n: np.where(np.arange(n) % PLANE_BLOCK == 0, 1e8, 1.0),
    "outlier first of a block of rows": lambda n: np.where(np.arange(n) % ROW_BLOCK == 0, 1e8, 1.0),
    "outlier last": lambda n: np.where(np.arange(n) == n - 1, 1e30, 1e-30),
    "alternating sign": lambda n: np.where(np.arange(n) % 2, 1e30, -1e30),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [1, 2, 127, 4097, 9000])
@pytest.mark.parametrize("what", HARD_VALUES)
def test_finite_values_have_finite_moments(what, count, dtype, layout):
    values = HARD_VALUES[what](count).astype(dtype)
    mu, m2 = moments_of(values, LAYOUTS[layout])
    true_mu, true_m2 = exact(values)
    assert values.min() <= mu <= values.max() or mu == pytest.approx(true_mu, rel=2 * EPS)
    assert 0.0 <= m2 < math.inf
    assert m2 == 0.0 or not what.startswith("constant")
    # Relative to an outlier, the deviations of the others cancel, which leaves a rounding error of its square.
    farthest = float(np.abs(values.astype(np.float64) - true_mu).max())
    assert m2 == pytest.approx(true_m2, rel=1200 * EPS, abs=1200 * EPS * count * farthest**2)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [2, 200, 5000])
def test_float64_values_whose_squares_overflow_give_no_nan(count, layout):
    values = np.where(np.arange(count) % 2, 1e200, -3e200)
    mu, m2 = moments_of(values, LAYOUTS[layout])
    assert mu == pytest.approx(-1e200)
    assert m2 == math.inf
    y, saved = F.batch_norm_forward(columns(values, LAYOUTS[layout]))
    assert not y.any()  # by the formula: divided by infinity
    assert not np.isnan(F.batch_norm_backward(np.ones_like(y), saved).dx).any()


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.floats(-1e150, 1e150), min_size=1, max_size=300),
    layout=st.sampled_from(list(LAYOUTS)),
)
def test_variance_of_any_float64_values_is_finite(values, layout):
    mu, m2 = moments_of(np.array(values), LAYOUTS[layout])
    assert math.isfinite(mu)
    assert 0.0 <= m2 < math.inf


# ---- the reduction tree ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_moments_follow_the_reduction_tree(form, dtype, isa):
    rng = np.random.default_rng(11)
    x = form.place((3 + rng.standard_normal(form.shape)).astype(DTYPES[dtype]))
    found = F.batch_norm_moments(x, axis=form.axis)
    in_memory = np.moveaxis(x, form.axis, -1)
    order = np.argsort([-s for s in in_memory.strides[:-1]], kind="stable")
    values = in_memory.transpose(*order, -1).reshape(-1, form.channels)
    mean, m2 = reductions.moments(values, is_rows(x, form))
    np.testing.assert_array_equal(found.mean, mean)
    np.testing.assert_array_equal(found.m2, m2)


def is_rows(x: np.ndarray, form) -> bool:
    """Return whether the next element in memory belongs to another channel."""
    others = [s for d, s in enumerate(x.strides) if x.shape[d] > 1 and d != form.axis % x.ndim]
    return form.channels > 1 and x.strides[form.axis] < min(others, default=math.inf)


COUNTS = [15, 16, 17, 127, 128, 129, 257, 4095, 4096, 4097, 3 * 4096 + 57, 11 * 4096 + 4001]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", COUNTS)
def test_any_count_follows_the_reduction_tree(count, layout, isa):
    rows = LAYOUTS[layout]
    values = np.array(pinned_values(count))
    found = moments_of(values, rows)
    assert found == tuple(v.item() for v in reductions.moments(values, rows))


def pinned_values(count: int) -> list[float]:
    return [1.0 / (1 + i * 7919 % 10007) for i in range(count)]


# Of many lengths tried, these distinguish the tree from similar ones: lanes joined with their neighbors, 8 or
# 32 lanes, blocks half or twice as long or not in quarters, blocks joined sequentially or in halves.
PINNED = {
    ("planes", 128): ("0x1.1440c6f31d580p-7", "0x1.fb9fd97851700p-1"),
    ("planes", 3021): ("0x1.201aa151ce000p-10", "0x1.0e37792488000p+0"),
    ("planes", PLANE_BLOCK + 1): ("0x1.0b41d63818dc8p-10", "0x1.156678950571cp+0"),
    ("planes", 5 * PLANE_BLOCK + 7): ("0x1.0b38e3c1495e2p-10", "0x1.1168f2b1cfd12p+2"),
    ("planes", 13 * PLANE_BLOCK + 7): ("0x1.01cb8d9b30a9dp-10", "0x1.276eaa721fb2dp+3"),
    ("rows", ROW_BLOCK): ("0x1.1440c6f31d580p-7", "0x1.fb9fd97851680p-1"),
    ("rows", ROW_BLOCK + 1): ("0x1.1232c73bb3c35p-7", "0x1.fba85be1082acp-1"),
    ("rows", 11 * ROW_BLOCK + 5): ("0x1.7ad7d9609ff7ep-10", "0x1.048300a65576dp+0"),
    ("rows", 160 * ROW_BLOCK + 3): ("0x1.0b427ebb45654p-10", "0x1.1168e8ad12072p+2"),
}


@pytest.mark.parametrize(("layout", "count"), PINNED)
def test_reduction_tree_is_pinned(layout, count, isa):
    """A different order of additions gives different results, and so requires a new major version."""
    mu, m2 = moments_of(np.array(pinned_values(count)), LAYOUTS[layout])
    assert (mu.hex(), m2.hex()) == PINNED[layout, count]


# ---- parts of a batch ----


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_are_joined_in_a_tree_over_their_index(layout):
    rng = np.random.default_rng(13)
    rows = LAYOUTS[layout]
    parts = [rng.standard_normal(n) for n in (5, 300, 1, 0, 4097)]
    moments = [F.batch_norm_moments(columns(p, rows)) for p in parts]
    joined = F.batch_norm_join(moments)
    nodes = [(m.mean[0], m.m2[0], m.n) for m in moments]
    first = reductions.join_moments(*nodes[:2])
    second = nodes[2]  # joining it with the empty fourth part changes nothing
    mean, m2, count = reductions.join_moments(reductions.join_moments(first, second), nodes[4])
    assert (joined.mean[0], joined.m2[0], joined.n) == (mean, m2, count)
    mu, deviations = exact(np.concatenate(parts))
    assert mean == pytest.approx(mu, abs=300 * EPS)
    assert m2 == pytest.approx(deviations, rel=1200 * EPS)


@pytest.mark.parametrize("rows", [1, 4])
def test_parts_cut_at_whole_subtrees_give_the_bits_of_the_whole(rows):
    """A cut after a power-of-two number of blocks lies between subtrees."""
    x = np.random.default_rng(17).standard_normal((6 * ROW_BLOCK * rows + 5, 3))
    cut = 4 * ROW_BLOCK * rows
    joined = F.batch_norm_join([F.batch_norm_moments(x[:cut]), F.batch_norm_moments(x[cut:])])
    whole = F.batch_norm_moments(x)
    assert joined.n == whole.n
    np.testing.assert_array_equal(joined.mean, whole.mean)
    np.testing.assert_array_equal(joined.m2, whole.m2)


def test_moments_of_empty_arrays_are_zero():
    for shape in ((0, 3), (2, 3, 0), (0, 3, 4)):
        found = F.batch_norm_moments(np.zeros(shape, np.float32))
        assert (found.n, found.mean.tolist(), found.m2.tolist()) == (0.0, [0.0] * 3, [0.0] * 3)
        part = F.batch_norm_moments(np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]))
        for parts in ([found, part], [part, found]):
            joined = F.batch_norm_join(parts)
            assert joined.n == 2.0
            assert joined.mean.tolist() == [2.0, 2.0, 2.0]
            assert joined.m2.tolist() == [2.0, 0.0, 2.0]
    assert F.batch_norm_moments(np.zeros((4, 0))).mean.shape == (0,)


def test_join_does_not_modify_its_inputs():
    parts = [F.batch_norm_moments(np.random.default_rng(s).standard_normal((5, 3))) for s in (1, 2)]
    before = [p.mean.tobytes() + p.m2.tobytes() for p in parts]
    F.batch_norm_join(parts)
    assert [p.mean.tobytes() + p.m2.tobytes() for p in parts] == before


def test_statistics_may_be_columns_of_a_larger_array():
    """This is their layout after an all-reduce of one packed array."""
    x = np.random.default_rng(19).standard_normal((6, 4))
    m = F.batch_norm_moments(x)
    packed = np.stack([m.mean, m.m2], 1)
    strided = F.BatchMoments(m.n, packed[:, 0], packed[:, 1])
    packed.flags.writeable = False
    joined = F.batch_norm_join([strided])
    np.testing.assert_array_equal(joined.mean, m.mean)
    np.testing.assert_array_equal(joined.m2, m.m2)
    y, _ = F.batch_norm_apply(x, strided)
    np.testing.assert_array_equal(y, F.batch_norm_forward(x)[0])


# ---- beyond 2**31 elements ----


@pytest.mark.slow
@pytest.mark.parametrize("axis", [0, 1])
def test_more_than_2_to_the_31_elements(axis, machine):
    """4.3 GB of float16: the last values have indices beyond the range of 32 bits."""
    n = 2**31 + 3 * PLANE_BLOCK + 5
    x = np.zeros((1, n) if axis == 0 else (n, 1), np.float16)
    x.flat[-3:] = 3.0
    found = F.batch_norm_moments(x, axis=axis)
    assert found.n == n
    assert found.mean[0] == pytest.approx(9.0 / n, rel=1e-12)
    assert found.m2[0] == pytest.approx(27.0 - 81.0 / n, rel=1e-12)
    y, _ = F.batch_norm_forward(x, axis=axis, eps=0.0, out=x)
    assert (y.flat[-3:] > 1e4).all()
    rest = y.reshape(-1)[:-3]
    expected = np.float16(-9.0 / n / math.sqrt(27.0 / n))
    assert all((rest[i : i + 2**24] == expected).all() for i in range(0, n, 2**24))
