"""The random words are those of Random123, and random enough for what they are used for."""

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
def test_known_answers(row):
    low = [row[i] | row[i + 1] << 32 for i in (0, 2, 4)]
    offset, index, seed = low
    assert F.philox4x32(seed=seed, offset=offset, index=index) == tuple(row[6:])
    assert [int(word) for word in reference.philox(row[:4], row[4:6])] == row[6:]


@pytest.mark.parametrize("name", ["seed", "offset", "index"])
@pytest.mark.parametrize(
    ("value", "kind", "says"),
    [
        (-1, ValueError, "{} must lie in [0, 2**64), got -1"),
        (2**64, ValueError, "{} must lie in [0, 2**64), got 18446744073709551616"),
        (1.0, TypeError, "{} must be an integer, got 1.0"),
        ("1", TypeError, "{} must be an integer, got '1'"),
        (None, TypeError, "{} must be an integer, got None"),
    ],
)
def test_what_is_no_64_bit_number_is_refused(name, value, kind, says):
    good = {"seed": 1, "offset": 2, "index": np.int32(3)}
    F.philox4x32(**good)
    with pytest.raises(kind, match=re.escape(says.format(name))):
        F.philox4x32(**good | {name: value})


# ---- the words behind a mask ----

# Around what may go wrong in 32 bits, and at both ends.
STARTS = [0, 1, 2, 3, 5, 127, 2**32 - 130, 2**34 - 130, 2**34 + 3, 2**40 + 1, 2**62 - 4000]
SEEDS = [(0, 0), (1, 2**32), (2**32, 1), (2**64 - 1, 2**64 - 1), (0x123456789ABCDEF0, 7)]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("seed", "offset"), SEEDS)
def test_mask_is_the_words_of_its_indices(seed, offset, start, isa):
    """Of any index of 62 bits; blocks and groups begin elsewhere than the array does."""
    for n in (1, 3, 4, 127, 128, 1100):
        options = {"seed": seed, "offset": offset, "start": start}
        found = F.dropout_mask(n, 0.375, **options)
        np.testing.assert_array_equal(found, reference.mask((n,), 0.375, **options))


@pytest.mark.parametrize("p", [0.0, 2.0**-33, 2.0**-32, 0.3, 1 - 2.0**-32, 1 - 2.0**-33, 1.0])
def test_threshold(p, isa):
    """Words below round(p * 2**32) are dropped: to the word, at both ends of a word's range too."""
    seed = 1469598103934665603
    drawn = reference.words(np.arange(4000), seed=seed)
    expected = drawn >= np.uint64(math.floor(p * 2**32 + 0.5))
    np.testing.assert_array_equal(F.dropout_mask(4000, p, seed=seed), expected)
    at = float(drawn[17]) / 2**32  # the word itself is the first that is kept
    assert F.dropout_mask(4000, at, seed=seed)[17]
    assert not F.dropout_mask(4000, at + 2.0**-32, seed=seed)[17]
    assert F.dropout_mask(4000, at + 2.0**-34, seed=seed)[17]
    assert not F.dropout_mask(4000, at + 2.0**-33, seed=seed)[17]


# ---- statistics: bounds of five standard deviations, which a fair generator leaves once in 1.7 million ----

MANY, CHUNK = 10**8, 10**7


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.999])
def test_keep_rate(p):
    """Of 10**8 elements, in chunks: an 8-bit threshold would be off by hundreds of standard deviations."""
    kept = sum(
        int(np.count_nonzero(F.dropout_mask(CHUNK, p, seed=2024, start=start)))
        for start in range(0, MANY, CHUNK)
    )
    assert abs(kept - MANY * (1 - p)) < 5 * math.sqrt(MANY * p * (1 - p))


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """How often two masks of p = 0.5 agree, in standard deviations from every other time."""
    return abs(np.count_nonzero(a == b) - a.size / 2) / math.sqrt(a.size / 4)


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 5, 64, 128, 1024, 65536])
def test_neighbours_are_independent(distance):
    mask = F.dropout_mask(CHUNK, 0.5, seed=11)
    assert agreement(mask[distance:], mask[:-distance]) < 5


@pytest.mark.parametrize("shift", [0, 1, 4, 128])
@pytest.mark.parametrize(
    "other", [{"offset": 1}, {"offset": 2**32}, {"seed": 12}, {"seed": 11 + 2**32}], ids=str
)
def test_calls_and_seeds_are_independent(other, shift):
    """Nor is one of them another one shifted."""
    first = F.dropout_mask(CHUNK, 0.5, seed=11)
    second = F.dropout_mask(CHUNK, 0.5, **{"seed": 11, **other})
    assert agreement(first[shift:], second[: CHUNK - shift]) < 5
