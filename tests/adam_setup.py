"""All that a step of Adam needs, laid out to be spoiled, and the watch over it."""

from contextlib import contextmanager
from itertools import chain

import numpy as np
import pytest

import fastopt
from fastopt import functional as F
from optimizers_table import all_bits, values

SHAPE = (4, 25)
LAST = 2  # of three arrays: the first two must stay untouched when this one is bad


def scene():
    """Three parameters with all that a step of Adam needs for them; the state is not at zero."""
    places = ("params", "m", "v", "grads")
    return {p: [abs(values(SHAPE, seed=9 * i + j)) for j in range(3)] for i, p in enumerate(places)}


def flat(s):
    return list(chain.from_iterable(s.values()))


def by_class(s):
    """Adam after one good step, with the scene's arrays in place of its own."""
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
    """The block raises what is expected and leaves the arrays as they are."""
    arrays = [a for a in arrays if isinstance(a, np.ndarray) and a.dtype != object]
    before = all_bits(arrays)
    with pytest.raises(kind, match=message) as caught:
        yield
    assert type(caught.value) is kind
    assert all_bits(arrays) == before
