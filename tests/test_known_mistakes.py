"""A test for each mistake that other libraries made in their steps. Some are covered more widely elsewhere;
here each one has its own test."""

from __future__ import annotations

import numpy as np
import pytest

import fastopt
from fastopt import functional as F
from step_cases import PLAIN, RULES, STORAGES, TILE, around, gradients, image, parameters
from tolerance import DTYPES, wide


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("length", [TILE - 1, TILE, TILE + 1, 10 * TILE + 9])
def test_full_simd_blocks_are_stored(rule, storage, length, isa):
    """A 16-bit step stored only its tail, and tiny tests with zero gradients did not detect it. Every
    parameter and every state value must change."""
    dtype, state_dtype = STORAGES[storage]
    case = around(PLAIN[rule], "", {"lr": 0.25})  # large enough to change a bfloat16
    params = parameters(np.random.default_rng(7), (length,), dtype)
    before = params[0].copy()
    opt = case.make(params, state_dtype)
    opt.step(gradients(np.random.default_rng(8), params))
    assert (params[0] != before).all()
    for arrays in case.states(opt).values():
        assert (arrays[0] != 0).all()


@pytest.mark.parametrize("rule", RULES)
def test_empty_tensors_in_a_list(rule):
    """An empty tensor ended a list early, or took its neighbor's place."""
    lengths = (0, 5, 0, 0, TILE + 1, 0)
    params = parameters(np.random.default_rng(7), lengths, np.float32)
    dense = [p.copy() for p in params if p.size]
    grads = gradients(np.random.default_rng(8), params)
    a, b = PLAIN[rule].make(params), PLAIN[rule].make(dense)
    for _ in range(2):
        a.step(grads)
        b.step([g for g in grads if g.size])
    assert image(params) == image(dense)


LAYOUTS = {
    "transposed": lambda base: base.T,
    "fortran": lambda base: np.asfortranarray(base),
    "permuted": lambda base: base.reshape(20, 30, 6).transpose(1, 2, 0),
    "row-block": lambda base: base[10:40],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rule", RULES)
def test_step_writes_to_the_view_and_not_to_a_copy(rule, layout):
    """A view was made contiguous first, and the step wrote to the copy."""
    view = LAYOUTS[layout](parameters(np.random.default_rng(7), (3600,), np.float32)[0].reshape(60, 60))
    flat = np.array(view, order="C")
    grads = gradients(np.random.default_rng(8), [flat])
    a, b = PLAIN[rule].make(view), PLAIN[rule].make(flat)
    for _ in range(2):
        a.step(grads[0])
        b.step(grads[0])
    np.testing.assert_array_equal(view, flat)


@pytest.mark.parametrize("dtype", DTYPES)
def test_aligned_stores_on_unaligned_views(dtype, isa):
    """An aligned vector store crashed on an unaligned array, or wrote beside it.
    test_bits.test_any_byte_offset tests all offsets."""
    dtype = DTYPES[dtype]
    room = np.zeros(1 + 99 * dtype.itemsize, np.uint8)
    w = room[1:].view(dtype)
    assert not w.flags.aligned or dtype.name == "bfloat16"
    F.sgd_step(w, np.ones(99, dtype), lr=0.5)
    np.testing.assert_array_equal(wide(w), -0.5)
    assert room[0] == 0


def test_step_counts_are_not_shared_among_groups_and_dtypes():
    """The step count of the bias correction was incremented for each group or dtype, so all but the first were
    wrong."""
    start = [np.ones(TILE + 3, dtype) for dtype in DTYPES.values()]
    grads = gradients(np.random.default_rng(8), start)
    together = [p.copy() for p in start]
    groups = fastopt.Adam([{"params": [p]} for p in together])
    alone = [fastopt.Adam(p) for p in start]
    for _ in range(3):
        groups.step(grads)
        for opt, g in zip(alone, grads, strict=True):
            opt.step(g)
    assert image(together) == image(start)
    assert groups.step_count == 3


def test_several_infinities_still_skip():
    """The flag of each device was 1 and their sum was 2, so the step was taken, because 2 is not 1."""
    w = [np.ones(5, np.float32) for _ in range(4)]
    g = [np.full(5, np.inf, np.float32) for _ in range(4)]
    opt = fastopt.SGD(w, on_nonfinite="skip")
    opt.step(g)
    assert all((p == 1.0).all() for p in w)
    assert (opt.step_count, opt.skipped_steps) == (0, 1)


@pytest.mark.parametrize("rule", RULES)
def test_state_after_a_skipped_first_step(rule):
    """The first step was skipped, the next one was treated as the second, and the momentum buffer was never
    created."""
    options = {**PLAIN[rule].options, "on_nonfinite": "skip"}
    if "velocity" in RULES[rule] and rule in ("momentum", "nesterov"):
        options["dampening"] = 0.5  # does not apply to the first step
    w, expected = np.ones(TILE + 3), np.ones(TILE + 3)
    opt, reference = PLAIN[rule].cls(w, **options), PLAIN[rule].cls(expected, **options)
    opt.step(np.full_like(w, np.nan))
    for _ in range(2):
        opt.step(np.full_like(w, 0.5))
        reference.step(np.full_like(w, 0.5))
    assert image([w], *PLAIN[rule].states(opt).values()) == image(
        [expected], *PLAIN[rule].states(reference).values()
    )
