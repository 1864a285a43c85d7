"""The limits of a dtype: NaN and infinities under each policy, denormals, huge and tiny gradients, and rounding
to 16 bits, pattern by pattern."""

from __future__ import annotations

import numpy as np
import pytest

import fastopt
from fastopt import functional as F
from step_cases import EVERYTHING, PLAIN, RULES, STORAGES, TILE, around, gradients, image, parameters
from tolerance import DTYPES, wide

# ---- non-finite gradients ----

LENGTHS = (TILE + 3, 0, 7, 5000)
CLIPS = {
    "": {},
    "clip-norm": {"clip_norm": 1.0},
    "clip-tensor": {"clip_norm": 1.0, "clip_scope": "tensor", "clip_norm_type": "max"},
    "clip-value": {"clip_value": 0.5},  # would make an infinity finite
    "unscale": {"grad_scale": 4096.0},
    "everything": EVERYTHING,
}


def gradients_with(params, bad, tensor, place):
    grads = gradients(np.random.default_rng(79), params)
    grads[tensor][place] = bad
    return grads


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("policy", ["skip", "raise"])
def test_nonfinite_gradients_write_nothing_with_skip_and_raise(policy, clip, storage):
    dtype, state_dtype = STORAGES[storage]
    case = around(PLAIN["adam"], clip, {**CLIPS[clip], "on_nonfinite": policy})
    params = parameters(np.random.default_rng(83), LENGTHS, dtype)
    opt = case.make(params, state_dtype)
    opt.step(gradients(np.random.default_rng(1), params))
    before = image(params, opt.m, opt.v)
    spots = [(t, i) for t in (0, 2, 3) for i in (0, -1)]
    for skipped, (bad, (tensor, place)) in enumerate(
        ((bad, spot) for bad in (np.nan, np.inf, -np.inf) for spot in spots), start=1
    ):
        grads = gradients_with(params, bad, tensor, place)
        if policy == "raise":
            with pytest.raises(
                FloatingPointError, match=rf"grads\[{tensor}\] has a NaN or an infinity"
            ):
                opt.step(grads)
        else:
            opt.step(grads)
            assert not case.step_function(params, grads, case.states(opt), 2)
        assert image(params, opt.m, opt.v) == before
        assert (opt.step_count, opt.skipped_steps) == (1, skipped)
    opt.step(gradients(np.random.default_rng(2), params))
    assert image(params, opt.m, opt.v) != before
    assert opt.step_count == 2


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("policy", ["propagate", "skip", "raise"])
def test_finite_gradients_give_the_same_step_with_every_policy(policy, clip):
    results = []
    for on_nonfinite in ("propagate", policy):
        params = parameters(np.random.default_rng(83), LENGTHS, np.float32)
        case = around(PLAIN["adam"], clip, {**CLIPS[clip], "on_nonfinite": on_nonfinite})
        opt = case.make(params)
        opt.step(gradients(np.random.default_rng(1), params))
        results.append(image(params, opt.m, opt.v))
    assert results[0] == results[1]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_propagate_affects_only_the_nonfinite_element(rule, bad):
    """A NaN affects other elements only through a common norm."""
    params = parameters(np.random.default_rng(83), LENGTHS, np.float32)
    twins = [p.copy() for p in params]
    opt, twin = PLAIN[rule].make(params), PLAIN[rule].make(twins)
    opt.step(gradients_with(params, bad, 0, 5))
    twin.step(gradients(np.random.default_rng(79), params))
    assert not np.isfinite(params[0][5])
    params[0][5] = twins[0][5]
    assert image(params) == image(twins)
    clipped = PLAIN[rule].cls(params, **{**PLAIN[rule].options, "clip_norm": 1.0})
    clipped.step(gradients_with(params, np.nan, 0, 5))
    assert all(np.isnan(p).all() for p in params)


def test_clip_value_of_one_group_does_not_hide_an_infinity():
    """A norm over values that clip_value has limited is finite even if a gradient is not."""
    limited, other, g = np.zeros(4, np.float32), np.zeros(4, np.float32), np.ones(4, np.float32)
    bad = np.array([1.0, np.inf, 1.0, 1.0], np.float32)
    groups = [{"params": [limited], "clip_value": 1.0}, {"params": [other]}]
    opt = fastopt.SGD(groups, lr=1.0, clip_norm=10.0, on_nonfinite="skip")
    opt.step([bad, g])
    assert opt.skipped_steps == 1
    assert not limited.any()
    assert not other.any()


def test_gradient_that_overflows_when_unscaled_counts_as_nonfinite():
    """The policy applies to the unscaled gradient, with and without clip_norm."""
    for clip_norm in (None, 1.0):
        w, g = np.ones(3, np.float32), np.array([1.0, 1e30, 1.0], np.float32)
        options = {"grad_scale": 1e-30, "clip_norm": clip_norm, "on_nonfinite": "skip"}
        assert not F.sgd_step(w, g, lr=1.0, **options)
        assert (w == 1.0).all()


# ---- denormals, huge and tiny ----


@pytest.mark.parametrize("storage", ["float32", "float64", "float16+float32", "bfloat16"])
@pytest.mark.parametrize("rule", [rule for rule in RULES if RULES[rule]])
def test_zero_gradients_leave_no_denormals_in_the_state(rule, storage):
    """Moments that decay for 3,000 steps become zeros and are never denormals of the compute type."""
    dtype, state_dtype = STORAGES[storage]
    params = parameters(np.random.default_rng(89), (TILE + 5,), dtype)
    case = PLAIN[rule]
    opt = case.make(params, state_dtype)
    opt.step([g * g.dtype.type(1e-3) for g in gradients(np.random.default_rng(97), params)])
    zeros = [np.zeros_like(params[0])]
    least = np.finfo(np.float64 if storage == "float64" else np.float32).tiny
    for t in range(3000):
        opt.step(zeros)
        if t % 50 == 0:
            for arrays in case.states(opt).values():
                size = np.abs(wide(arrays[0]))
                assert not ((size > 0) & (size < least)).any()
    if storage != "float64" and "velocity" in RULES[rule]:
        assert not wide(opt.velocity[0]).any()  # it has decayed to zero


# Exponents relative to the dtype's largest; above 0.5, squares overflow.
POWERS = [0.9, 0.49, -0.3, -0.6, -1.0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("rule", "power"),
    # A centered variance of overflowed squares is inf - inf, which is NaN by its formula.
    [(r, p) for r in RULES for p in POWERS if p < 0.5 or "mean_grad" not in RULES[r]],
)
def test_huge_and_tiny_gradients_stay_finite(rule, dtype, power):
    """Squares may overflow to infinity or underflow to zero. No parameter becomes NaN, and if the rule divides
    by the gradient's magnitude, none moves further than the learning rate allows."""
    info = np.finfo(dtype)
    size = np.dtype(dtype).type(2.0 ** (power * info.maxexp))
    w = np.ones(TILE + 3, dtype)
    opt = PLAIN[rule].make(w)
    for _ in range(3):
        opt.step(np.full_like(w, size))
        assert np.isfinite(w).all()
    if RULES[rule] and rule not in ("momentum", "nesterov"):
        assert np.abs(w - 1).max() < 1.0


# ---- 16-bit storage, pattern by pattern ----

PATTERNS = np.arange(2**16, dtype=np.uint16)
DTYPES_16_BIT = ["float16", "bfloat16"]


def assert_same_values(a: np.ndarray, b: np.ndarray) -> None:
    """Compare bit for bit, except for the payload of NaNs."""
    nan = np.isnan(wide(a))
    np.testing.assert_array_equal(nan, np.isnan(wide(b)))
    np.testing.assert_array_equal(a.view(np.uint16)[~nan], b.view(np.uint16)[~nan])


@pytest.mark.parametrize("dtype", DTYPES_16_BIT)
@pytest.mark.parametrize("shift", [0, 1, 3])
def test_zero_step_preserves_every_16_bit_pattern(dtype, shift, isa):
    """Widening followed by narrowing is the identity. The shift moves each pattern into the tail once."""
    values = PATTERNS[shift:].view(DTYPES[dtype])
    w = values.copy()
    F.sgd_step(w, np.zeros_like(w), lr=1.0)
    assert_same_values(w, values)


def critical_floats(dtype) -> np.ndarray:
    """Return every 16-bit value as float32, every midpoint between neighbors, and the adjacent floats."""
    values = PATTERNS.view(DTYPES[dtype]).astype(np.float32)
    finite = np.sort(values[np.isfinite(values)])
    most = finite[-1]
    beyond = np.float32([most * np.float32(1.0001), np.finfo(np.float32).max, np.inf])
    middles = ((wide(finite[1:]) + wide(finite[:-1])) / 2).astype(np.float32)
    edge = np.float32(wide(most) + (wide(most) - wide(finite[-2])) / 2)  # where infinity begins
    points = np.concatenate([finite, middles, beyond, -beyond, [edge, -edge, np.nan]]).astype("f4")
    adjacent = [np.nextafter(points, np.float32(s)) for s in (-np.inf, np.inf)]
    return np.concatenate([points, *adjacent])


@pytest.mark.parametrize("dtype", DTYPES_16_BIT)
def test_narrowing_rounds_to_nearest_even(dtype, isa):
    """Compare with the casts of NumPy and ml_dtypes. With a float32 velocity, any float can be rounded to a
    16-bit parameter: w = 0 - v."""
    with np.errstate(over="ignore", invalid="ignore"):
        velocity = critical_floats(dtype)
    velocity = velocity[~(np.abs(velocity) < np.finfo(np.float32).tiny)]  # denormals are stored as zero
    with np.errstate(over="ignore", invalid="ignore"):
        expected = (np.float32(0) - velocity).astype(DTYPES[dtype])
    w = np.zeros(len(velocity), DTYPES[dtype])
    F.momentum_step(w, np.zeros_like(w), velocity, lr=1.0, momentum=1.0)
    assert_same_values(w, expected)


@pytest.mark.parametrize("dtype", DTYPES_16_BIT)
@pytest.mark.parametrize("lr", [0.75, 0.5, 0.499, 1.0, 3.7])
def test_16_bit_step_computes_in_float32_and_rounds_once(dtype, lr, isa):
    """Every pattern is used as a gradient; denormals, too, take part in the arithmetic and are rounded once."""
    g = PATTERNS.view(DTYPES[dtype])
    w = np.roll(g, 12345)
    with np.errstate(all="ignore"):
        expected = (w.astype("f4") - np.float32(lr) * g.astype("f4")).astype(DTYPES[dtype])
    F.sgd_step(w, g, lr=lr)
    assert_same_values(w, expected)


@pytest.mark.parametrize("dtype", DTYPES_16_BIT)
def test_float32_state_keeps_squares_that_underflow_in_16_bits(dtype):
    """Gradients whose squares underflow in float16 still count with state_dtype="float32"."""
    w, g = np.ones(3, DTYPES[dtype]), np.full(3, 1e-4, DTYPES[dtype])
    opt = fastopt.Adam(w, lr=0.25, state_dtype="float32")
    opt.step(g)
    assert opt.v[0].dtype == np.float32
    assert (opt.v[0] > 0).all()
    np.testing.assert_array_equal(wide(w), 0.75)
