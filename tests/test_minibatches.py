"""Mini-batches: every sample once per epoch, in an order given by seed and epoch, resumable at any batch."""

from __future__ import annotations

import copy
import pickle
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import fastopt
from array_libraries import each_library
from fastopt import _random
from fastopt.data import minibatches

X = np.arange(23)


def epochs(batches, n):
    return [[batch.tolist() for batch in batches] for _ in range(n)]


@given(
    samples=st.integers(0, 40),
    batch_size=st.none() | st.integers(1, 50),
    shuffle=st.booleans(),
    seed=st.integers(0, 2**64 - 1),
)
@example(samples=0, batch_size=None, shuffle=True, seed=0)
@example(samples=0, batch_size=2, shuffle=False, seed=0)
def test_epoch_has_every_sample_once(samples, batch_size, shuffle, seed):
    batches = minibatches(np.arange(samples), batch_size=batch_size, shuffle=shuffle, seed=seed)
    (epoch,) = epochs(batches, 1)
    assert sorted(n for batch in epoch for n in batch) == list(range(samples))
    assert len(epoch) == len(batches)
    size = batch_size or max(samples, 1)
    assert all(len(batch) == size for batch in epoch[:-1])
    assert all(0 < len(batch) <= size for batch in epoch[-1:])


def test_without_shuffling_the_order_is_kept_and_batches_are_views():
    x = X.copy()
    batches = list(minibatches(x, batch_size=8, shuffle=False))
    assert np.concatenate(batches).tolist() == X.tolist()
    assert all(np.shares_memory(batch, x) for batch in batches)


def test_drop_last_drops_the_short_batch_of_every_epoch():
    batches = minibatches(X, batch_size=5, drop_last=True)
    assert [[len(batch) for batch in epoch] for epoch in epochs(batches, 2)] == [[5] * 4] * 2
    assert len(batches) == 4
    assert [len(batch) for batch in minibatches(X[:20], batch_size=5, drop_last=True)] == [5] * 4


def test_dropped_samples_are_the_last_of_the_order():
    batches = minibatches(X, batch_size=5, seed=3, drop_last=True)
    order = batches.order()
    assert sorted(order) == X.tolist()
    assert np.concatenate(list(batches)).tolist() == order[:20].tolist()


def test_orders_differ_by_epoch_and_seed_and_are_reproducible():
    first = epochs(minibatches(X, batch_size=23, seed=3), 3)
    assert epochs(minibatches(X, batch_size=23, seed=3), 3) == first
    orders = [tuple(epoch[0]) for epoch in first] + [tuple(X)]
    orders += [tuple(epoch[0]) for epoch in epochs(minibatches(X, batch_size=23, seed=4), 3)]
    assert len(set(orders)) == len(orders)


def test_the_order_is_pinned():
    """The order is the same on every machine, and in every version that promises reproducible runs."""
    (epoch,) = epochs(minibatches(np.arange(10), batch_size=10, seed=2024), 1)
    assert epoch == [[1, 3, 7, 2, 0, 4, 9, 6, 5, 8]]


def test_every_position_of_a_sample_is_equally_likely():
    """Sample 0 is expected 1000 times at each position in 4000 epochs of 4 samples, with a standard deviation
    of 27.4."""
    batches = minibatches(np.arange(4), batch_size=4)
    places = np.bincount([epoch[0].index(0) for epoch in epochs(batches, 4000)], minlength=4)
    assert (np.abs(places - 1000) < 4 * 27.4).all()


def test_empty_data_set_with_drop_last_has_no_batch():
    batches = minibatches(np.zeros((0, 3)), batch_size=2, drop_last=True)
    assert (len(batches), list(batches), batches.epoch) == (0, [], 1)


def test_batch_size_none_with_one_sample_is_one():
    assert minibatches(np.zeros((1, 3)), batch_size=None).batch_size == 1


def test_a_batch_of_several_arrays_is_a_tuple():
    assert type(next(iter(minibatches(X, X, batch_size=2)))) is tuple


def test_order_without_shuffling_is_sequential():
    assert minibatches(X, batch_size=2, shuffle=False).order().tolist() == X.tolist()


@pytest.mark.parametrize("samples", [1, 2, 2**14 - 1, 2**14 + 1, 50001])
def test_order_is_a_stable_argsort_of_random_bits(samples):
    bits = _random.bits(7, _random.stream("minibatches", 0), [0], samples)[0]
    batches = minibatches(np.zeros(samples), batch_size=1, seed=7)
    np.testing.assert_array_equal(batches.order(), np.argsort(bits, kind="stable"))


def test_order_uses_little_memory():
    """8 bytes per sample for the bits, 8 for the order, and the workspace of the sort."""
    batches = minibatches(np.zeros(2**20, bool), batch_size=1)
    tracemalloc.start()
    batches.order()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 22 * 2**20


@given(done=st.integers(0, 20), batch_size=st.integers(1, 9), drop_last=st.booleans())
def test_a_resumed_run_returns_the_remaining_batches(done, batch_size, drop_last):
    def make():
        return minibatches(X, X * 2, batch_size=batch_size, seed=7, drop_last=drop_last)

    def run(batches, upto=10**9):
        seen = []
        for _ in range(batches.epoch, 3):
            for x, y in batches:
                assert (y == 2 * x).all()
                seen.append(x.tolist())
                if len(seen) == upto:
                    return seen
        return seen

    uninterrupted = run(make())
    interrupted = make()
    seen = run(interrupted, done) if done else []
    resumed = make()
    resumed.load_state_dict(pickle.loads(pickle.dumps(interrupted.state_dict())))
    assert seen + run(resumed) == uninterrupted
    assert (resumed.epoch, resumed.position) == (3, 0)


def test_interrupted_loop_continues_unless_position_is_reset():
    batches = minibatches(X, batch_size=10, shuffle=False)
    next(iter(batches))
    assert [len(batch) for batch in batches] == [10, 3]
    next(iter(batches))
    batches.position = 0
    assert [len(batch) for batch in batches] == [10, 10, 3]


def test_memory_maps_are_read_one_batch_at_a_time(tmp_path):
    stored = np.memmap(tmp_path / "x", np.float32, "w+", shape=(100, 3))
    stored[:] = np.arange(300).reshape(100, 3)
    for shuffle in (True, False):
        for batch, number in minibatches(stored, np.arange(100), batch_size=7, shuffle=shuffle):
            assert batch.nbytes == len(number) * 12
            np.testing.assert_array_equal(batch, stored[number])


@each_library
def test_libraries_get_the_same_batches(library):
    x = library.array(np.arange(20.0).reshape(10, 2))
    found = [library.host(b).tolist() for b in minibatches(x, batch_size=4, seed=5)]
    assert found == epochs(minibatches(np.arange(20.0).reshape(10, 2), batch_size=4, seed=5), 1)[0]


def test_torch_without_array_api_compat_raises(torch, monkeypatch):
    monkeypatch.setitem(sys.modules, "array_api_compat", None)  # as if it were not installed
    with pytest.raises(
        ImportError, match=r"^arrays of torch require .* pip install 'fastopt\[arrays\]'$"
    ):
        list(minibatches(torch.ones(3), batch_size=2))


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_mask_stays_with_its_samples(shuffle):
    x = np.ma.array(np.arange(6.0), mask=[0, 1, 0, 0, 1, 0])
    for batch, number in minibatches(x, np.arange(6), batch_size=4, shuffle=shuffle):
        np.testing.assert_array_equal(batch.mask, x.mask[number])


INVALID = {
    "no array": (lambda: minibatches(batch_size=1), TypeError, "minibatches needs at least one"),
    "array without axes": (
        lambda: minibatches(np.array(1.0), batch_size=1),
        ValueError,
        r"arrays\[0\] has no axes",
    ),
    "lengths": (
        lambda: minibatches(X, X[:3], batch_size=1),
        ValueError,
        r"arrays\[1\] has 3 samples, but arrays\[0\] has 23",
    ),
    "a list": (
        lambda: minibatches([1, 2], batch_size=1),
        TypeError,
        r"arrays\[0\] has type list, expected an array",
    ),
    "no batch": (
        lambda: minibatches(X, batch_size=24, drop_last=True),
        ValueError,
        "batch_size is 24, but there are 23",
    ),
    "size 0": (lambda: minibatches(X, batch_size=0), ValueError, "batch_size must be 1 or more, got 0"),
    "fractional size": (
        lambda: minibatches(X, batch_size=1.5),
        TypeError,
        "batch_size must be an integer",
    ),
    "a seed": (
        lambda: minibatches(X, batch_size=1, seed=-1),
        ValueError,
        r"seed must lie in \[0, 2\*\*64\), got -1",
    ),
    "no seed": (
        lambda: minibatches(X, batch_size=1, seed=None),
        TypeError,
        "seed must be an integer",
    ),
    "shuffle is not a bool": (
        lambda: minibatches(X, batch_size=1, shuffle=1),
        TypeError,
        "shuffle must be True or False",
    ),
}


@pytest.mark.parametrize(("call", "kind", "message"), INVALID.values(), ids=INVALID)
def test_invalid_arguments_raise(call, kind, message):
    with pytest.raises(kind, match="^" + message):
        call()


MISMATCHED_STATES = {
    "batch_size": ({"batch_size": 4}, "state_dict has batch_size 4, expected 5"),
    "samples": ({"samples": 4}, "state_dict has samples 4, expected 23"),
    "seed": ({"seed": 4}, "state_dict has seed 4, expected 0"),
    "inside a batch": ({"position": 4}, "state_dict's position is 4"),
    "past the end": ({"position": 25}, "state_dict's position is 25"),
    "a bad epoch": ({"epoch": -1}, "state_dict's epoch must be 0 or more"),
    "an epoch too late": ({"epoch": 2**48}, r"state_dict's epoch must lie in \[0, 2\*\*48\)"),
}


@pytest.mark.parametrize(("change", "message"), MISMATCHED_STATES.values(), ids=MISMATCHED_STATES)
def test_mismatched_state_raises_and_changes_nothing(change, message):
    batches = minibatches(X, batch_size=5)
    next(iter(batches))
    before = copy.deepcopy(batches.state_dict())
    with pytest.raises(ValueError, match="^" + message):
        batches.load_state_dict({**before, **change})
    assert batches.state_dict() == before


def test_state_that_is_not_a_dict_raises():
    with pytest.raises(TypeError, match=r"^state has type NoneType, expected a dict"):
        minibatches(X, batch_size=5).load_state_dict(None)


INVALID_ATTRIBUTES = {
    "epoch": [
        (-1, ValueError, "epoch must be 0 or more"),
        (1.5, TypeError, "epoch must be an int"),
        (2**48, ValueError, r"epoch must lie in \[0, 2\*\*48\)"),
    ],
    "position": [
        (-3, ValueError, "position must be 0 or more"),
        (None, TypeError, "position must be an int"),
        (4, ValueError, "position is 4, expected a multiple of batch_size=5 up to 23, or 23, the"),
        (25, ValueError, "position is 25, expected a multiple of batch_size=5 up to 23, or 23, the"),
    ],
}


@pytest.mark.parametrize(
    ("name", "value", "kind", "message"),
    [(name, *case) for name, cases in INVALID_ATTRIBUTES.items() for case in cases],
)
def test_setting_an_invalid_epoch_or_position_raises(name, value, kind, message):
    batches = minibatches(X, batch_size=5)
    with pytest.raises(kind, match="^" + message):
        setattr(batches, name, value)
    assert (batches.epoch, batches.position) == (0, 0)
    for position in (5, 20, 23):
        batches.position = position
        assert sum(len(batch) for batch in batches) == 23 - position


# Calls that invalidate an earlier iterator.
INVALIDATING_CALLS = {
    "another loop": lambda batches, state: list(batches),
    "the start of another loop": lambda batches, state: iter(batches),
    "a state": lambda batches, state: batches.load_state_dict(state),
    "an epoch": lambda batches, state: setattr(batches, "epoch", 3),
    "a position": lambda batches, state: setattr(batches, "position", 0),
}


@pytest.mark.parametrize("begun", [0, 1, 2])
@pytest.mark.parametrize("end", INVALIDATING_CALLS.values(), ids=INVALIDATING_CALLS)
def test_an_invalidated_iterator_returns_nothing(end, begun):
    batches = minibatches(np.arange(4), batch_size=2, seed=1)
    state, old = batches.state_dict(), iter(batches)
    for _ in range(begun):
        next(old)
    end(batches, state)
    before = batches.state_dict()
    with pytest.raises(RuntimeError, match=r"^this iterator is no longer valid"):
        next(old)
    assert batches.state_dict() == before
    expected = minibatches(np.arange(4), batch_size=2, seed=1)
    expected.load_state_dict(before)
    assert epochs(batches, 2) == epochs(expected, 2)


def test_two_concurrent_loops_raise():
    batches = minibatches(X, batch_size=5)
    with pytest.raises(RuntimeError, match="no longer valid: another iteration was started"):
        list(zip(batches, batches, strict=True))


def test_repr_shows_all_options():
    assert repr(fastopt.data.minibatches(X, batch_size=5)) == (
        "MiniBatches(samples=23, batch_size=5, shuffle=True, seed=0, drop_last=False)"
    )
