"""The arrays of a step of Adam, for tests that make one of them invalid, and a check that nothing changes."""

from contextlib import contextmanager
from itertools import chain

import numpy as np
import pytest

import fastopt
from fastopt import functional as F
from optimizers_table import all_bits, values

SHAPE = (4, 25)
LAST = 2  # of three arrays: the first two must stay unchanged when this one is invalid


def scene():
    """Three parameters with their gradients and nonzero state, as a step of Adam needs them."""
    places = ("params", "m", "v", "grads")
    return {p: [abs(values(SHAPE, seed=9 * i + j)) for j in range(3)] for i, p in enumerate(places)}


def flat(s):
    return list(chain.from_iterable(s.values()))


def by_class(s):
    """Step with the class: Adam after one valid step, with its arrays replaced by those of ``s``."""
    opt = fastopt.Adam([np.ones(SHAPE, np.float32) for _ in range(3)])
    opt.step([np.ones(SHAPE, np.float32) for _ in range(3)])
    opt.params[:], opt.m[:], opt.v[:] = s["params"], s["m"], s["v"]
    counts = opt.step_count, opt.skipped_steps
    try:
        opt.step(s["grads"])
    except Exception:
        assert (opt.step_count, opt.skipped_steps) == counts
        raise


def by_function(s):
    F.adam_step(s["params"], s["grads"], s["m"], s["v"], step=2)


FACES = {"class": by_class, "function": by_function}


@contextmanager
def refused(kind, message, arrays):
    """Check that the block raises exactly this error and leaves the arrays unchanged."""
    arrays = [a for a in arrays if isinstance(a, np.ndarray) and a.dtype != object]
    before = all_bits(arrays)
    with pytest.raises(kind, match=message) as caught:
        yield
    assert type(caught.value) is kind
    assert all_bits(arrays) == before
