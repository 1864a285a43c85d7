"""Counter-based random numbers and the elementary functions that transform them: known answers, what each
number depends on, distributions, and accuracy against the platform's libm."""

from __future__ import annotations

import math
from decimal import Context, Decimal, localcontext
from statistics import NormalDist

import numpy as np
import pytest

import fastopt
from fastopt import _ieee_math, _random

# Random123's test vectors for Philox4x32-10: counter, key, words.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_known_answers(counter, key, words):
    c0, c1, c2, c3 = counter
    block = np.array([c3 << 32 | c2], np.uint64)
    found = _random.philox(key[1] << 32 | key[0], c1 << 32 | c0, block)
    assert " ".join(f"{int(word[0]):08x}" for word in found) == words


@pytest.mark.parametrize("seed", [0, 5, 2**64 - 1])
@pytest.mark.parametrize("offset", [0, 7, 2**48, 2**64 - 1])
def test_philox_matches_the_compiled_version(seed, offset):
    blocks = [0, 1, 2**31, 2**32 + 5, 2**64 - 1]
    found = _random.philox(seed, offset, np.array(blocks, np.uint64))
    for i, block in enumerate(blocks):
        expected = fastopt.functional.philox4x32(seed=seed, offset=offset, index=block)
        assert tuple(int(word[i]) for word in found) == expected


def test_number_depends_only_on_seed_offset_row_and_index():
    whole = _random.bits(5, 9, [0, 3, 2**32 - 1], 11)
    for i, row in enumerate([0, 3, 2**32 - 1]):
        for n in (1, 2, 7):
            np.testing.assert_array_equal(_random.bits(5, 9, [row], n)[0], whole[i, :n])
        np.testing.assert_array_equal(_random.bits(5, 9, [row], 5, start=4)[0], whole[i, 4:9])
    for other in (_random.bits(6, 9, [0], 11), _random.bits(5, 8, [0], 11), whole[1]):
        assert not np.isin(other, whole[0]).any()


def test_streams_and_epochs_have_distinct_offsets():
    offsets = [_random.stream(name, epoch) for name in _random.STREAMS for epoch in (0, 1, 2**48 - 1)]
    assert len(set(offsets)) == len(offsets)
    assert all(2**48 <= offset < 2**64 for offset in offsets)


def test_uniform_numbers_are_exact_and_exclude_0_and_1(monkeypatch):
    for bits, expected in ((0, 2.0**-53), (2**64 - 1, 1.0 - 2.0**-53), (2**63, 0.5 + 2.0**-53)):
        monkeypatch.setattr(_random, "bits", lambda *a, bits=bits: np.array([[bits]], np.uint64))
        assert _random.uniforms(0, 0, [0], 1).item() == expected


def test_uniform_numbers_are_uniform():
    """Pearson's chi-squared over 256 cells has mean 255 and deviation 22.6; neighbors are uncorrelated."""
    u = _random.uniforms(1, 2, [0], 2**16)[0]
    counts = np.bincount((u * 256).astype(int), minlength=256)
    assert abs(((counts - 256) ** 2 / 256).sum() - 255) < 4 * 22.6
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 4 / 256


def test_normal_numbers_are_normal():
    """The Kolmogorov distance between the distributions exceeds 1.95 / sqrt(n) in 1 of 1000 samples."""
    z = np.sort(_random.normals(1, 2, [0], 2**14)[0])
    expected = [NormalDist().cdf(x) for x in z]
    assert np.abs(expected - np.linspace(0, 1, len(z))).max() < 1.95 / 2**7
    assert abs(z.mean()) < 4 / 2**7
    assert abs(z.var() - 1) < 4 * math.sqrt(2) / 2**7


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize(("kind", "size"), [("normal", 8.3), ("uniform", 1.0)])
def test_fill_result_does_not_depend_on_the_part_size(kind, size, dtype, monkeypatch):
    arrays = []
    for part in (2**14, 2, 10):
        monkeypatch.setattr(_random, "PART", part)
        arrays.append(np.empty(31, dtype))
        _random.fill(arrays[-1], kind, 0.5, 3, 4)
    assert arrays[0].tobytes() == arrays[1].tobytes() == arrays[2].tobytes()
    assert 0 < np.abs(arrays[0]).max() <= 0.5 * size


# ---- elementary functions ----

DRAWN = np.random.default_rng(0)
FUNCTIONS = {
    "log": (_ieee_math.log, math.log, np.exp(DRAWN.uniform(-700, 700, 2000)), 4),
    "log near 1": (_ieee_math.log, math.log, DRAWN.uniform(0.5, 2, 2000), 4),
    "exp": (_ieee_math.exp, math.exp, DRAWN.uniform(-700, 700, 2000), 2),
    "normal quantile": (
        _ieee_math.normal_quantile,
        NormalDist().inv_cdf,
        DRAWN.uniform(1e-9, 1 - 1e-9, 2000),
        8,
    ),
    "normal quantile in its tail": (
        _ieee_math.normal_quantile,
        NormalDist().inv_cdf,
        np.exp(DRAWN.uniform(-37, -0.7, 2000)),
        8,
    ),
}


@pytest.mark.parametrize(("ours", "theirs", "x", "ulps"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions_are_accurate_to_a_few_ulps(ours, theirs, x, ulps):
    expected = np.array([theirs(float(v)) for v in x])
    assert (np.abs(ours(x) - expected) <= ulps * np.spacing(np.abs(expected))).all()


def test_normal_quantile_is_symmetric():
    u = _random.uniforms(1, 2, [0], 1000)[0]
    np.testing.assert_array_equal(_ieee_math.normal_quantile(1 - u), -_ieee_math.normal_quantile(u))


def test_cos_pi_and_sin_pi():
    t = DRAWN.uniform(-3, 3, 2000)
    np.testing.assert_allclose(_ieee_math.cos_pi(t), np.cos(np.pi * t), rtol=0, atol=2e-15)
    np.testing.assert_allclose(_ieee_math.sin_pi(t), np.sin(np.pi * t), rtol=0, atol=2e-15)
    assert [float(_ieee_math.cos_pi(q / 2)) for q in range(-4, 5)] == [1, 0, -1, 0, 1, 0, -1, 0, 1]
    assert [float(_ieee_math.sin_pi(q / 2)) for q in range(-2, 3)] == [0, -1, 0, 1, 0]


def test_exp_of_a_large_negative_number_is_zero():
    assert _ieee_math.exp(np.array([-1e9]))[0] == 0


@pytest.mark.parametrize("base", [0.1, 0.5, 0.97, 3.0])
@pytest.mark.parametrize("exponent", [0, 1, 7, 0.5, 12.25, 90])
def test_power(base, exponent):
    assert math.isclose(_ieee_math.power(base, exponent), base**exponent, rel_tol=1e-14)
    assert _ieee_math.power(0.0, exponent) == 0.0**exponent


@pytest.mark.parametrize("base", [0.9, 0.999, 0.999999, 1.0001])
@pytest.mark.parametrize("exponent", [10, 1000, 10**6])
def test_power_error_is_below_its_exponent_in_ulps(base, exponent):
    with localcontext(Context(prec=50)):
        exact = Decimal(base) ** exponent
        off = abs(Decimal(_ieee_math.power(base, exponent)) - exact)
    assert off < exponent * Decimal(math.ulp(float(exact)))


def test_underflow_raises_no_floating_point_error():
    with np.errstate(all="raise"):
        part = np.empty(2000, np.float16)
        _random.fill(part, "normal", 1e-6, 0, 0)
        assert _ieee_math.exp(np.array([-745.0, -800.0])).tolist()[1] == 0.0
        assert _ieee_math.cos_pi(np.array([1e-200])).tolist() == [1.0]
