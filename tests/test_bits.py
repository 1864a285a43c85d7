"""The numerical contract: the same bits for any thread count, instruction set, alignment and split into arrays.
All comparisons are exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastopt
from fastopt import _core
from fastopt import functional as F
from step_cases import (
    EVERYTHING,
    PLAIN,
    RULES,
    STORAGES,
    TILE,
    Case,
    around,
    gradients,
    image,
    parameters,
)
from tolerance import DTYPES

BLOCK, GROUP = 4096, 16  # csrc/rules/norms.hpp; csrc/cpu/norm.cpp hands out groups of blocks
LENGTHS = (0, 1, TILE - 1, TILE, TILE + 1, 0, 2 * BLOCK + 3, 9 * TILE, 40_001)

# Each rule alone, and each with all options around it.
CASES = [
    *PLAIN.values(),
    *(around(case, "everything", EVERYTHING) for case in PLAIN.values()),
    around(PLAIN["momentum"], "proximal", {"l1": 0.5, "l1_mode": "proximal"}),
    around(PLAIN["sgd"], "clip-one", {"clip_norm": 1.0, "clip_norm_type": 1}),
    around(PLAIN["sgd"], "clip-max", {"clip_norm": 1.0, "clip_norm_type": "max"}),
    around(PLAIN["sgd"], "clip-tensor", {"clip_norm": 1.0, "clip_scope": "tensor"}),
]


def walk(case: Case, storage: str, lengths=LENGTHS, steps=3) -> str:
    """A digest of parameters and state after a few steps from a fixed start."""
    dtype, state_dtype = STORAGES[storage]
    rng = np.random.default_rng(41)
    params = parameters(rng, lengths, dtype)
    opt = case.make(params, state_dtype)
    for _ in range(steps):
        opt.step(gradients(rng, params))
    return image(params, *case.states(opt).values())


# ---- threads, instruction sets ----

ISAS = _core.isas_supported()
MACHINES = [*((isa, 1) for isa in ISAS), *((ISAS[0], threads) for threads in (2, 3, 7)), (ISAS[-1], 3)]


def turn(isa: str, threads: int) -> None:
    """Select the instruction set and force this many threads, however small the arrays."""
    _core.select_isa(isa)
    _core.set_parallel_cutoff(0)
    fastopt.set_num_threads(threads)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_threads_and_instruction_sets(case, storage, machine):
    results = {}
    for isa, threads in MACHINES:
        turn(isa, threads)
        results[isa, threads] = walk(case, storage)
    assert len(set(results.values())) == 1, results


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [1, 2, "max"])
def test_norms_on_threads_and_instruction_sets(kind, dtype, machine):
    rng = np.random.default_rng(43)
    arrays = [rng.standard_normal(n).astype(DTYPES[dtype]) for n in (*LENGTHS, 5 * GROUP * BLOCK + 7)]
    found = set()
    for isa, threads in MACHINES:
        turn(isa, threads)
        found.add(F.global_norm(arrays, norm_type=kind).hex())
    assert len(found) == 1


# ---- alignment ----


def placed(array: np.ndarray, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """A copy that starts ``offset`` bytes after a multiple of 64, and its whole buffer with margins."""
    size, margin = array.nbytes, 64
    room = np.full(size + offset + 3 * margin, 0xA5, np.uint8)
    start = -room.ctypes.data % 64 + margin + offset
    view = room[start : start + size].view(array.dtype)
    view[...] = array
    return view, room


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("rule", RULES)
def test_any_byte_offset(rule, storage, isa):
    """Parameters, gradients and state have different offsets; the bytes around parameters do not change."""
    case = around(PLAIN[rule], "", {"clip_norm": 3.0, "l2": 0.1})
    dtype, state_dtype = STORAGES[storage]
    rng = np.random.default_rng(47)
    n = TILE + 37
    (param,) = parameters(rng, (n,), dtype)
    grads = gradients(rng, [param])
    results = set()
    for offset in range(64):
        p, room = placed(param, offset)
        g, _ = placed(grads[0], (5 * offset + 3) % 64)
        opt = case.make(p, state_dtype)
        for k, name in enumerate(RULES[rule]):
            setattr(opt, name, [placed(getattr(opt, name)[0], (offset + 7 * k + 1) % 64)[0]])
        opt.step(g)
        results.add(image([p], *case.states(opt).values()))
        start = p.ctypes.data - room.ctypes.data
        assert (room[:start] == 0xA5).all()
        assert (room[start + p.nbytes :] == 0xA5).all()
    assert len(results) == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_at_any_byte_offset(dtype, isa):
    values = np.random.default_rng(53).standard_normal(BLOCK + 37).astype(DTYPES[dtype])
    assert len({F.global_norm(placed(values, offset)[0]) for offset in range(64)}) == 1


# ---- splits ----

WHOLE = 3 * BLOCK + TILE + 11
cuts = st.lists(st.integers(0, WHOLE), max_size=12).map(sorted)
many = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@many
@given(cuts=cuts, storage=st.sampled_from(list(STORAGES)), rule=st.sampled_from(list(RULES)))
def test_any_split_gives_the_same_step(cuts, storage, rule):
    """An array and any list of its parts give the same bits, with one norm over the whole list."""
    case = around(PLAIN[rule], "clipped", {"clip_norm": 5.0})
    dtype, state_dtype = STORAGES[storage]
    rng = np.random.default_rng(59)
    whole = parameters(rng, (WHOLE,), dtype)
    grads = gradients(rng, whole)
    parts = np.split(whole[0].copy(), cuts)
    opt, cut = case.make(whole, state_dtype), case.make(parts, state_dtype)
    for _ in range(2):
        opt.step(grads)
        cut.step(np.split(grads[0], cuts))
    assert image(parts, *case.states(cut).values()) == image(whole, *case.states(opt).values())


@many
@given(cuts=cuts, dtype=st.sampled_from(list(DTYPES)), kind=st.sampled_from([1, 2, "max"]))
def test_any_split_has_the_same_norm(cuts, dtype, kind):
    values = np.random.default_rng(61).standard_normal(WHOLE).astype(DTYPES[dtype])
    whole = F.global_norm(values, norm_type=kind)
    assert F.global_norm(np.split(values, cuts), norm_type=kind).hex() == whole.hex()


@pytest.mark.parametrize("length", [0, 1, TILE - 1, TILE, TILE + 1, 2 * TILE, 20 * TILE + 3])
@pytest.mark.parametrize("rule", RULES)
def test_elements_are_independent(rule, length, isa):
    """Vector body, tail and tile edges round identically: an array of equal values stays an array of equal
    values, the result of a single element."""
    case = PLAIN[rule]
    for storage in STORAGES:
        dtype, state_dtype = STORAGES[storage]
        alone, row = np.full(1, 1.2345, dtype), np.full(length, 1.2345, dtype)
        for array in (alone, row):
            opt = case.make(array, state_dtype)
            for _ in range(2):
                opt.step(np.full_like(array, 0.777))
        assert row.tobytes() == alone.tobytes() * length


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("prefetch_threshold", [1, 2**62])
def test_a_large_array_steps_as_its_parts(rule, storage, prefetch_threshold, isa):
    """The bits are the same with and without software prefetching."""
    _core.set_prefetch_threshold(prefetch_threshold)
    dtype, state_dtype = STORAGES[storage]
    fastopt.set_num_threads(1)
    rng = np.random.default_rng(67)
    (part,) = parameters(rng, (10 * TILE + 3,), dtype)
    count = 100
    whole, (grad,) = np.tile(part, count), gradients(rng, [part])
    for array, its_grad in ((part, grad), (whole, np.tile(grad, count))):
        opt = PLAIN[rule].make(array, state_dtype)
        for _ in range(2):
            opt.step(its_grad)
    assert whole.tobytes() == part.tobytes() * count


# ---- the norm's reduction tree, pinned ----


def tree_norm(values: list[float], kind: int) -> float:
    """The norm in double precision, with the reduction tree of rules/norms.hpp."""
    sums = []
    for start in range(0, len(values), BLOCK):
        lanes = [0.0] * 16
        for i, x in enumerate(values[start : start + BLOCK]):
            lanes[i % 16] += x * x if kind == 2 else abs(x)
        while len(lanes) > 1:
            half = len(lanes) // 2
            lanes = [a + b for a, b in zip(lanes[:half], lanes[half:], strict=True)]
        sums += lanes
    while len(sums) > 1:
        odd = sums[len(sums) // 2 * 2 :]
        sums = [a + b for a, b in zip(sums[::2], sums[1::2], strict=False)] + odd
    return math.sqrt(sums[0]) if kind == 2 else sums[0]


# Cases selected from many to distinguish the tree from similar ones: adjacent lanes combined first, 8 or 32
# lanes, blocks half or twice as long, blocks added sequentially or combined by halving.
PINNED = {
    (1, 1000): "0x1.bef55abd3cb82p+0",
    (1, BLOCK + 1): "0x1.0b528a557c65cp+2",
    (1, 3 * BLOCK + 57): "0x1.91dc4d6aaa0d8p+3",
    (1, 19 * BLOCK + 4001): "0x1.42a23e883e26ep+6",
    (2, 1000): "0x1.021ae09721b40p+0",
    (2, BLOCK + 1): "0x1.0b022e36bef02p+0",
    (2, 3 * BLOCK + 57): "0x1.a37922a8205a4p+0",
}


@pytest.mark.parametrize(("kind", "count"), PINNED)
def test_norm_tree_is_pinned(kind, count, isa):
    """Another order of additions changes results and requires a new major version."""
    values = [1.0 / (1 + i * 7919 % 10007) for i in range(count)]
    assert tree_norm(values, kind).hex() == PINNED[kind, count]
    assert F.global_norm(np.array(values), norm_type=kind).hex() == PINNED[kind, count]


def test_mixed_dtypes_are_one_sequence(isa):
    """The norm of a list of all dtypes is that of the values in float64; each array is stepped as if alone."""
    rng = np.random.default_rng(67)
    params = [p for dtype in DTYPES.values() for p in parameters(rng, (TILE + 9, 0, 3), dtype)]
    grads = gradients(rng, params)
    grads[-1][0] = 2.0  # the largest gradient
    wide = np.concatenate([g.astype(np.float64) for g in grads])
    assert F.global_norm(grads).hex() == F.global_norm(wide).hex()
    alone = [p.copy() for p in params]
    fastopt.Adam(params, clip_norm=0.5, clip_eps=0.0, clip_norm_type="max").step(grads)
    for p, g in zip(alone, grads, strict=True):
        fastopt.Adam(p, grad_scale=4.0).step(g)
    assert image(params) == image(alone)


# ---- beyond 2**31 elements ----


@pytest.mark.slow
def test_more_than_2_to_the_31_elements(machine):
    """4.3 GB of float16; the gradient is one broadcast value. Every element is stepped exactly once."""
    n = 2**31 + 4 * TILE + 3
    w = np.zeros(n, np.float16)
    w[-5:] = 7.0
    gradient = np.broadcast_to(np.float16(1.0), w.shape)
    F.sgd_step(w, gradient, lr=0.5, clip_norm=1e6)
    assert (w[-5:] == 6.5).all()
    assert all((w[i : i + 2**24] == -0.5).all() for i in range(0, n - 2**24, 2**24))
    assert (w[-(2**24) : -5] == -0.5).all()
    assert F.global_norm(gradient) == np.sqrt(float(n))
