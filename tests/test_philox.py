"""The random words are those of Random123, and they pass statistical tests suited to their use."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

import reference_dropout as reference
from fastopt import functional as F

# Random123's known answers: counter, key, words.
KNOWN = """
00000000 00000000 00000000 00000000  00000000 00000000  6627e8d5 e169c58d bc57ac4c 9b00dbd8
ffffffff ffffffff ffffffff ffffffff  ffffffff ffffffff  408f276d 41c83b0e a20bc7c6 6d5451fd
243f6a88 85a308d3 13198a2e 03707344  a4093822 299f31d0  d16cfe09 94fdcceb 5001e420 24126ea1
"""
ANSWERS = [[int(word, 16) for word in line.split()] for line in KNOWN.strip().splitlines()]


@pytest.mark.parametrize("row", ANSWERS, ids=lambda row: f"{row[0]:08x}")
def test_philox_known_answers(row):
    low = [row[i] | row[i + 1] << 32 for i in (0, 2, 4)]
    offset, index, seed = low
    assert F.philox4x32(seed=seed, offset=offset, index=index) == tuple(row[6:])
    assert [int(word) for word in reference.philox(row[:4], row[4:6])] == row[6:]


@pytest.mark.parametrize("name", ["seed", "offset", "index"])
@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (-1, ValueError, "{} must lie in [0, 2**64), got -1"),
        (2**64, ValueError, "{} must lie in [0, 2**64), got 18446744073709551616"),
        (1.0, TypeError, "{} must be an integer, got 1.0"),
        ("1", TypeError, "{} must be an integer, got '1'"),
        (None, TypeError, "{} must be an integer, got None"),
    ],
)
def test_argument_that_is_not_uint64_raises(name, value, kind, message):
    good = {"seed": 1, "offset": 2, "index": np.int32(3)}
    F.philox4x32(**good)
    with pytest.raises(kind, match=re.escape(message.format(name))):
        F.philox4x32(**good | {name: value})


# ---- words of a mask ----

# Around indices where 32-bit arithmetic would overflow, and at both ends of the range.
STARTS = [0, 1, 2, 3, 5, 127, 2**32 - 130, 2**34 - 130, 2**34 + 3, 2**40 + 1, 2**62 - 4000]
SEEDS = [(0, 0), (1, 2**32), (2**32, 1), (2**64 - 1, 2**64 - 1), (0x123456789ABCDEF0, 7)]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("seed", "offset"), SEEDS)
def test_mask_is_computed_from_the_words_of_its_indices(seed, offset, start, isa):
    """Any 62-bit index is allowed; blocks and groups need not be aligned with the start of the array."""
    for n in (1, 3, 4, 127, 128, 1100):
        options = {"seed": seed, "offset": offset, "start": start}
        found = F.dropout_mask(n, 0.375, **options)
        np.testing.assert_array_equal(found, reference.mask((n,), 0.375, **options))


@pytest.mark.parametrize("p", [0.0, 2.0**-33, 2.0**-32, 0.3, 1 - 2.0**-32, 1 - 2.0**-33, 1.0])
def test_mask_drops_words_below_the_rounded_threshold(p, isa):
    """Words below round(p * 2**32) are dropped. This is exact to one word, also at both ends of the range."""
    seed = 1469598103934665603
    drawn = reference.words(np.arange(4000), seed=seed)
    expected = drawn >= np.uint64(math.floor(p * 2**32 + 0.5))
    np.testing.assert_array_equal(F.dropout_mask(4000, p, seed=seed), expected)
    at = float(drawn[17]) / 2**32  # this word itself is the smallest that is kept
    assert F.dropout_mask(4000, at, seed=seed)[17]
    assert not F.dropout_mask(4000, at + 2.0**-32, seed=seed)[17]
    assert F.dropout_mask(4000, at + 2.0**-34, seed=seed)[17]
    assert not F.dropout_mask(4000, at + 2.0**-33, seed=seed)[17]


# ---- statistics: bounds of five standard deviations, which a fair generator exceeds once in 1.7 million ----

MANY, CHUNK = 10**8, 10**7


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.999])
def test_keep_rate(p):
    """10**8 elements, in chunks. An 8-bit threshold would be off by hundreds of standard deviations."""
    kept = sum(
        int(np.count_nonzero(F.dropout_mask(CHUNK, p, seed=2024, start=start)))
        for start in range(0, MANY, CHUNK)
    )
    assert abs(kept - MANY * (1 - p)) < 5 * math.sqrt(MANY * p * (1 - p))


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Return how far the agreement of two masks of p = 0.5 is from one half, in standard deviations."""
    return abs(np.count_nonzero(a == b) - a.size / 2) / math.sqrt(a.size / 4)


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 5, 64, 128, 1024, 65536])
def test_neighboring_elements_are_independent(distance):
    mask = F.dropout_mask(CHUNK, 0.5, seed=11)
    assert agreement(mask[distance:], mask[:-distance]) < 5


@pytest.mark.parametrize("shift", [0, 1, 4, 128])
@pytest.mark.parametrize(
    "other", [{"offset": 1}, {"offset": 2**32}, {"seed": 12}, {"seed": 11 + 2**32}], ids=str
)
def test_masks_of_different_seeds_and_offsets_are_independent(other, shift):
    """None of them is a shifted copy of another one."""
    first = F.dropout_mask(CHUNK, 0.5, seed=11)
    second = F.dropout_mask(CHUNK, 0.5, **{"seed": 11, **other})
    assert agreement(first[shift:], second[: CHUNK - shift]) < 5
