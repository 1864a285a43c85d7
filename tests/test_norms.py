"""Norms and clipping: the global norm of finite gradients is finite, tiny gradients do not underflow, and
clipping in a step gives the same result as clipping before it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import fastopt
import reference
from fastopt import functional as F
from step_cases import STORAGES, TILE, gradients, image, parameters
from tolerance import DTYPES, assert_close, wide

NORMS = [1, 2, "max"]
EPS = 2.0**-52


def exact_norm(values, kind) -> float:
    """Sum exactly. Values are scaled so that the largest is near 1 and no square overflows or underflows."""
    x = [abs(float(v)) for v in values]
    if kind == 2:
        shift = max(math.frexp(max(x, default=0.0))[1], -1000)
        return math.ldexp(math.sqrt(math.fsum(math.ldexp(v, -shift) ** 2 for v in x)), shift)
    return math.fsum(x) if kind == 1 else max(x, default=0.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("length", [1, 15, 16, 17, TILE + 1, 4096, 4097, 70_001])
def test_norm_against_exact_sums(kind, dtype, length, isa):
    values = np.random.default_rng(length).standard_normal(length).astype(DTYPES[dtype])
    exact = exact_norm(values, kind)
    # Sixteen lanes of 256 additions each, then a tree: no element goes through more than 300 roundings.
    assert F.global_norm(values, norm_type=kind) == pytest.approx(exact, rel=300 * EPS, abs=0)


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        ("float16", 65504.0),
        ("float16", 6e-8),
        ("bfloat16", 1e38),
        ("bfloat16", 1e-38),
        ("float32", 1e30),
        ("float32", 1e-30),
        ("float32", 1e-45),
        ("float64", 1e200),
        ("float64", 1e-200),
        ("float64", 1e300),
        ("float64", 5e-324),
    ],
)
def test_norm_of_huge_or_tiny_values_stays_in_range(dtype, size, kind, isa):
    x = np.full(10_000, size, DTYPES[dtype])
    count = {1: 10_000, 2: 100, "max": 1}[kind]
    assert F.global_norm(x, norm_type=kind) == pytest.approx(count * float(x[0]), rel=300 * EPS, abs=0)


@settings(max_examples=200, deadline=None)
@example([1.7e308, -1.7e308])
@example([5e-324, 3e-320])
@example([1e-200, 1e200])
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=40))
def test_norm_of_any_finite_float64_values(values):
    """Their magnitudes may be mixed in any way."""
    try:
        exact = exact_norm(values, 2)
    except OverflowError:  # the norm itself is beyond the largest double
        exact = math.inf
    assert F.global_norm(np.array(values)) == pytest.approx(exact, rel=300 * EPS, abs=5e-324)


def test_norm_of_tiny_float64_and_large_float32_arrays():
    """Rescaling for the float64 values must not lose the float32 values if these are larger."""
    tiny, one = np.full(3, 1e-200), np.array([3.0, 4.0], np.float32)
    assert F.global_norm([tiny, one]) == 5.0
    assert F.global_norm([np.array([3e200, 4e200]), one]) == pytest.approx(5e200, rel=4 * EPS)


@pytest.mark.parametrize("size", [1e-160, 1e-150, 1e-138, 1e153])
def test_norm_with_squares_near_underflow_and_overflow(size):
    """Subnormal squares, whose sum has too few digits, and squares of which only the sum overflows."""
    x = np.full(1000, size)
    assert F.global_norm(x) == pytest.approx(exact_norm(x, 2), rel=300 * EPS, abs=0)


@pytest.mark.parametrize("kind", NORMS)
def test_norm_of_an_empty_list_is_zero(kind):
    for empty in ([], [np.zeros(0)], [np.zeros(0), np.zeros(5000, np.float32)], np.zeros((0, 3))):
        assert F.global_norm(empty, norm_type=kind) == 0.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("place", [0, TILE, 5000, -1])
def test_norm_propagates_infinity_and_nan(kind, dtype, place, isa):
    x = np.ones(9000, DTYPES[dtype])
    x[place] = -np.inf
    assert F.global_norm([x[:3000], x[3000:]], norm_type=kind) == np.inf
    x[place // 2] = np.nan
    assert math.isnan(F.global_norm([x[:3000], x[3000:]], norm_type=kind))


# ---- clipping ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("scope", ["global", "tensor"])
@pytest.mark.parametrize("clip_eps", [1e-6, 0.0])
def test_clip_grad_norm_against_reference(dtype, kind, scope, clip_eps):
    rng = np.random.default_rng(71)
    grads = [rng.standard_normal(n).astype(DTYPES[dtype]) for n in (3, 0, TILE + 1)]
    options = {"clip_eps": clip_eps, "clip_scope": scope, "clip_norm_type": kind}
    expected = reference.shape_gradients([wide(g) for g in grads], clip_norm=2.0, **options)
    sizes = [reference.norm([wide(g)], kind) for g in grads]
    before = F.clip_grad_norm(grads, 2.0, norm_type=kind, clip_eps=clip_eps, scope=scope)
    whole = reference.norm([np.array(sizes)], kind)
    assert before == pytest.approx(whole if scope == "global" else sizes, rel=300 * EPS)
    for g, want in zip(grads, expected, strict=True):
        assert_close(g, want)


@pytest.mark.parametrize("storage", ["float32", "float64"])
@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_clip_norm_in_a_step_equals_clipping_before_it(storage, kind, scope):
    rng = np.random.default_rng(73)
    dtype, _ = STORAGES[storage]
    params = parameters(rng, (3, TILE + 1, 0, 9000), dtype)
    twins, grads = [p.copy() for p in params], gradients(rng, params)
    raw = [g.copy() for g in grads]
    F.sgd_step(params, grads, lr=0.1, clip_norm=1.5, clip_norm_type=kind, clip_scope=scope)
    assert image(grads) == image(raw)
    F.clip_grad_norm(raw, 1.5, norm_type=kind, scope=scope)
    F.sgd_step(twins, raw, lr=0.1)
    assert image(params) == image(twins)


@pytest.mark.parametrize("exponent", [-1020, -600, -450, -1, 422, 440, 460, 473, 480, 1000])
@pytest.mark.parametrize("size", [2.0**-1000, 2.0**-550, 2.0**550, 2.0**1018])
def test_clip_norm_with_any_grad_scale(exponent, size):
    """The unscaled gradient and its norm are in range, but the scale itself or its square may not be."""
    scale = math.ldexp(1.2345, exponent)
    if not 2.0**-1000 < size / scale < 2.0**1020:
        scale = math.ldexp(1.2345, -exponent)
    if not 2.0**-1000 < size / scale < 2.0**1020:
        pytest.skip("the unscaled gradient itself would be out of range")
    g, w = np.array([3.0, 4.0, 0.0]) * size, np.zeros(3)
    limit = 2.5 * (size / scale)
    F.sgd_step(w, g, lr=1.0, grad_scale=scale, clip_norm=limit, clip_eps=0.0)
    np.testing.assert_allclose(w, -(g / scale) / 2, rtol=8 * EPS)


def test_zero_gradients_stay_zero_with_any_grad_scale():
    """Another group's scale may be so large relative to the norm that their product overflows."""
    w = np.ones(3)
    F.sgd_step(
        w, np.array([3e-170, 4e-170, 0.0]) * 2.0**-450, lr=1.0, grad_scale=2.0**-450, clip_norm=1.0
    )
    assert w.tolist() == [1.0, 1.0, 1.0]
    a, b, g = np.zeros(2), np.ones(2), np.array([3e-170, 4e-170])
    groups = [{"params": [a], "grad_scale": 1.0}, {"params": [b], "grad_scale": 2.0**-500}]
    fastopt.SGD(groups, lr=1.0, clip_norm=1e-170, clip_eps=0.0).step([g, np.zeros(2)])
    np.testing.assert_allclose(a, -g / 5, rtol=8 * EPS)
    assert b.tolist() == [1.0, 1.0]


def test_clip_value_of_float64_gradients_whose_squares_overflow():
    p, q = np.zeros(2), np.zeros(2)
    fastopt.SGD([p], lr=1.0, clip_value=1e170, clip_norm=1.0).step([np.full(2, 5e200)])
    fastopt.SGD([q], lr=1.0, clip_norm=1.0).step([np.full(2, 1e170)])
    assert image([p]) == image([q])


FORMS = {"tuple": tuple, "dict": lambda grads: dict(zip("ab", grads, strict=True))}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_container_of_gradients_does_not_change_the_result(form):
    plain, given = ([np.array([3.0]), np.array([0.0, 4.0])] for _ in range(2))
    assert F.global_norm(form(given)) == 5.0
    assert F.clip_grad_norm(form(given), 4.5, scope="tensor") == [3.0, 4.0]
    assert F.clip_grad_norm(form(given), 1.0) == F.clip_grad_norm(plain, 1.0) == 5.0
    F.clip_grad_value(form(given), 0.5)
    F.clip_grad_value(plain, 0.5)
    assert image(given) == image(plain)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_norm", [5.0, 5.5, 1e30, float("inf")])
def test_norm_within_the_limit_leaves_gradients_unchanged(dtype, max_norm):
    """The coefficient is then exactly 1, even at the limit itself."""
    g = np.array([3.0, 0.0, -4.0], DTYPES[dtype])
    given = image([g])
    assert F.clip_grad_norm(g, max_norm, clip_eps=0.0) == 5.0
    assert image([g]) == given


def test_clipping_zero_gradients_gives_no_nan():
    """0 / 0 must not be computed: the norm is within the limit, even if the limit is 0."""
    g, w = np.zeros(5), np.ones(5)
    assert F.clip_grad_norm(g, 0.0, clip_eps=0.0) == 0.0
    F.sgd_step(w, g, lr=1.0, clip_norm=0.0, clip_eps=0.0)
    assert not g.any()
    assert (w == 1.0).all()
    F.sgd_step(w, g + 1.0, lr=1.0, clip_norm=0.0, clip_eps=0.0)
    assert (w == 1.0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_clip_grad_value(dtype, isa):
    g = np.array([np.nan, np.inf, -np.inf, 3.0, -3.0, 0.5, -0.0] * 100, DTYPES[dtype])
    F.clip_grad_value(g, 1.0)
    expected = np.array([np.nan, 1.0, -1.0, 1.0, -1.0, 0.5, -0.0] * 100, DTYPES[dtype])
    np.testing.assert_array_equal(wide(g), wide(expected))
    assert np.signbit(g[6])
