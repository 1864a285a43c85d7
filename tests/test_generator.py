"""A generator returns each offset once, and a checkpoint of it or of its layer resumes the exact masks."""

from __future__ import annotations

import copy
import pickle
import re
import threading

import numpy as np
import pytest

import fastopt
from fastopt import functional as F
from optimizers_table import values


def masks(layer, count):
    return [layer(np.ones(1000, np.float32)).astype(bool) for _ in range(count)]


def test_offsets_count_up_and_key_of_stream_0_is_the_seed():
    generator = fastopt.Generator(2**64 - 1)
    assert [generator.next_offset() for _ in range(3)] == [0, 1, 2]
    assert (generator.offset, generator.key, generator.seed, generator.stream) == (
        3,
        2**64 - 1,
        2**64 - 1,
        0,
    )


def test_streams_have_distinct_keys_and_independent_masks():
    """The key is computed from seed and stream by Philox, as the docstring says."""
    keys = {fastopt.Generator(seed, stream).key for seed in range(50) for stream in range(50)}
    assert len(keys) == 2500
    low, high, _, _ = F.philox4x32(seed=5, offset=3, index=2**64 - 1)
    assert fastopt.Generator(5, stream=3).key == low + 2**32 * high
    one, two = (fastopt.Dropout(generator=fastopt.Generator(5, s)) for s in (1, 2))
    for a, b in zip(masks(one, 3), masks(two, 3), strict=True):
        assert abs(np.mean(a == b) - 0.5) < 0.08  # five standard deviations


def test_stream_keys_are_pinned():
    """Other keys would give other results, and so require a new major version."""
    assert [hex(fastopt.Generator(7, stream).key) for stream in (0, 1, 2**64 - 1)] == [
        "0x7",
        "0xf70768022dc32cfd",
        "0x977462bbb6882757",
    ]


def test_threads_draw_distinct_offsets():
    generator, offsets = fastopt.Generator(0), []

    def take():
        mine = [generator.next_offset() for _ in range(5000)]
        offsets.extend(mine)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(offsets) == list(range(20_000))


# ---- checkpoints ----


def resumed_from_state(generator):
    other = fastopt.Generator(999, stream=4)
    other.load_state_dict(generator.state_dict())
    return other


COPIES = {
    "state_dict": resumed_from_state,
    "pickle": lambda g: pickle.loads(pickle.dumps(g)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("stream", [0, 3])
def test_copies_resume_the_exact_masks(how, stream):
    layer = fastopt.Dropout(0.4, generator=fastopt.Generator(21, stream))
    masks(layer, 3)
    resumed = fastopt.Dropout(0.4, generator=COPIES[how](layer.generator))
    assert repr(resumed) == repr(layer)
    ahead = masks(layer, 3)
    np.testing.assert_array_equal(ahead, masks(resumed, 3))
    assert len({m.tobytes() for m in ahead}) == 3


@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
def test_copying_a_layer_between_forward_and_backward_copies_its_generator(how):
    layer = fastopt.Dropout(0.4, generator=21, channel_axis=1)
    x, dy = values((3, 4, 5)), values((3, 4, 5), seed=1)
    layer(x)
    other = COPIES[how](layer)
    assert other.generator is not layer.generator
    np.testing.assert_array_equal(other.backward(dy), layer.backward(dy))
    np.testing.assert_array_equal(other(x), layer(x))


VALID_STATE = {"seed": 1, "stream": 2, "offset": 3}


@pytest.mark.parametrize(
    ("state", "kind", "message"),
    [
        (None, TypeError, "state has type NoneType, expected a dict"),
        ({"seed": 1, "stream": 2}, ValueError, "state_dict has the keys"),
        ({**VALID_STATE, "more": 1}, ValueError, "state_dict has the keys"),
        ({**VALID_STATE, "seed": -1}, ValueError, "seed must lie in [0, 2**64), got -1"),
        ({**VALID_STATE, "stream": 2**64}, ValueError, "stream must lie in [0, 2**64), got"),
        ({**VALID_STATE, "offset": 1.5}, TypeError, "offset must be an integer, got 1.5"),
    ],
)
def test_invalid_state_is_rejected_and_changes_nothing(state, kind, message):
    generator = fastopt.Generator(5)
    generator.next_offset()
    with pytest.raises(kind, match=re.escape(message)):
        generator.load_state_dict(state)
    assert generator.state_dict() == {"seed": 5, "stream": 0, "offset": 1}


@pytest.mark.parametrize("arguments", [(-1,), (2**64,), (1, -1), (1, 2**64)])
def test_seed_or_stream_outside_uint64_raises(arguments):
    with pytest.raises(ValueError, match=r"(seed|stream) must lie in \[0, 2\*\*64\), got"):
        fastopt.Generator(*arguments)
    for kind in (1.5, "1", None):
        with pytest.raises(TypeError, match=re.escape(f"seed must be an integer, got {kind!r}")):
            fastopt.Generator(kind)


def test_exhausted_generator_raises_instead_of_wrapping_around():
    generator = fastopt.Generator(1)
    generator.load_state_dict({"seed": 1, "stream": 0, "offset": 2**64 - 2})
    assert generator.next_offset() == 2**64 - 2
    with pytest.raises(OverflowError, match="is exhausted: all"):
        generator.next_offset()
