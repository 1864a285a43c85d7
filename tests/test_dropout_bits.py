"""An array has one mask and one result, bit for bit, whatever its layout in memory, its division into chunks,
and the threads and instruction set that process it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastopt
from fastopt import _core
from fastopt import functional as F
from layouts import GRADS, SHAPE, TARGETS, shifted
from optimizers_table import DTYPES, bits, values
from subprocesses import output

ISAS = _core.isas_supported()
SEED = {"seed": 17, "offset": 3}
OPTIONS = {
    "plain": {},
    "channels": {"channel_axis": 2},
    "alpha": {"alpha": True},
    "evaluation": {"training": False, "scaling": "test_time"},
}


def make_inputs(dtype, shape=SHAPE):
    """Return the inputs: x, a residual and a bias."""
    x, residual, bias = (
        values(s, DTYPES[dtype], seed) for seed, s in enumerate((shape, shape, shape[-1]))
    )
    return {"x": x, "residual": residual, "bias": bias}


# ---- threads, instruction sets ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS)
def test_threads_and_instruction_sets(options, dtype, machine):
    arrays = make_inputs(dtype, (5, 3, 1700, 2))
    _core.set_parallel_cutoff(0)
    results = set()
    for isa in ISAS:
        for threads in (1, 2, 3, 7):
            _core.select_isa(isa)
            fastopt.set_num_threads(threads)
            y, saved = F.dropout_forward(p=0.3, **arrays, **SEED, **OPTIONS[options], start=9)
            dx = F.dropout_backward(arrays["x"], saved)
            results.add(y.tobytes() + dx.tobytes())
    assert len(results) == 1


def test_masks_on_threads(machine):
    _core.set_parallel_cutoff(0)
    masks = set()
    for threads in (1, 2, 3, 7):
        fastopt.set_num_threads(threads)
        masks.add(F.dropout_mask(51_001, 0.3, **SEED).tobytes())
    assert len(masks) == 1


@pytest.mark.parametrize("options", OPTIONS)
def test_every_dtype_has_the_same_mask(options, isa):
    options = {**OPTIONS[options], "training": True, "scaling": "inverted"}
    kept = set()
    for dtype in DTYPES.values():
        y, saved = F.dropout_forward(np.ones(SHAPE, dtype), 0.3, **SEED, **options)
        dx = F.dropout_backward(np.ones(SHAPE, dtype), saved)
        np.testing.assert_array_equal(y == y.max(), dx != 0)
        kept.add((dx != 0).tobytes())
    options.pop("training"), options.pop("scaling"), options.pop("alpha", None)
    assert kept == {F.dropout_mask(SHAPE, 0.3, **SEED, **options).tobytes()}


# ---- layouts ----


@pytest.mark.parametrize("options", ["plain", "channels"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", GRADS)
def test_input_layouts(layout, dtype, options, isa):
    """x, the residual and dy may each have any layout; the result has x's, and the mask follows row-major
    indices."""
    s = make_inputs(dtype)
    x, residual = GRADS[layout](s["x"]), GRADS[layout](s["residual"])
    s["x"], s["residual"] = np.ascontiguousarray(x), np.ascontiguousarray(residual)
    y, saved = F.dropout_forward(p=0.3, **s, **SEED, **OPTIONS[options])
    dx = F.dropout_backward(s["x"], saved)
    for a, r in ((x, s["residual"]), (s["x"], residual), (x, residual)):
        found, _ = F.dropout_forward(a, 0.3, residual=r, bias=s["bias"], **SEED, **OPTIONS[options])
        assert bits(found) == bits(y)
        assert found.strides == np.empty_like(a).strides
    assert bits(F.dropout_backward(x, saved)) == bits(dx)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", TARGETS)
def test_output_layouts(layout, dtype, isa):
    """The output may have any order, or be x, the residual or dy (in place)."""
    s = make_inputs(dtype)
    y, saved = F.dropout_forward(p=0.3, **s, **SEED)
    dx = F.dropout_backward(s["x"], saved)
    out = TARGETS[layout](np.zeros_like(s["x"]))
    assert F.dropout_forward(p=0.3, **s, **SEED, out=out)[0] is out
    assert bits(out) == bits(y)
    assert F.dropout_backward(s["x"], saved, out=out) is out
    assert bits(out) == bits(dx)
    for name in ("x", "residual"):
        own = {**s, name: TARGETS[layout](s[name])}
        F.dropout_forward(p=0.3, **own, **SEED, out=own[name])
        assert bits(own[name]) == bits(y)
    dy = TARGETS[layout](s["x"])
    F.dropout_backward(dy, saved, out=dy)
    assert bits(dy) == bits(dx)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_byte_offset_writes_nothing_outside(dtype, isa):
    s = make_inputs(dtype)
    y, _ = F.dropout_forward(p=0.3, **s, **SEED)
    for offset in range(64):
        room = np.full(y.nbytes + 256, 0xA5, np.uint8)
        begin = -room.ctypes.data % 64 + 64 + offset
        out = room[begin : begin + y.nbytes].view(y.dtype).reshape(y.shape)
        x, residual, bias = (shifted(a, (k * offset + k) % 64) for k, a in enumerate(s.values(), 1))
        F.dropout_forward(x, 0.3, residual=residual, bias=bias, **SEED, out=out)
        assert bits(out) == bits(y)
        assert (room[:begin] == 0xA5).all()
        assert (room[begin + y.nbytes :] == 0xA5).all()


# ---- lengths, chunks ----


@pytest.mark.parametrize("dtype", DTYPES)
def test_short_arrays_give_the_beginning_of_longer_ones(dtype, isa):
    x = values(700, DTYPES[dtype])
    y, _ = F.dropout_forward(x, 0.3, **SEED)
    for n in [*range(140), 255, 256, 257, 511, 513]:
        assert bits(F.dropout_forward(x[:n], 0.3, **SEED)[0]) == bits(y[:n])


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 5000), max_size=8).map(sorted),
    start=st.integers(0, 2**61),
    threads=st.integers(1, 5),
)
def test_chunks_give_parts_of_the_whole(cuts, start, threads):
    x = values(5000)
    y, _ = F.dropout_forward(x, 0.3, **SEED, start=start)
    _core.set_parallel_cutoff(0)
    fastopt.set_num_threads(threads)
    try:
        for begin, end in zip([0, *cuts], [*cuts, 5000], strict=True):
            part, saved = F.dropout_forward(x[begin:end], 0.3, **SEED, start=start + begin)
            assert bits(part) == bits(y[begin:end])
            dx = F.dropout_backward(np.ones(end - begin), saved)
            np.testing.assert_array_equal(dx != 0, y[begin:end] != 0)
    finally:
        _core.set_parallel_cutoff(_core.PARALLEL_CUTOFF)
        fastopt.set_num_threads(0)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (0, 3), (1,), (1, 1, 1)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_empty_and_single_arrays(dtype, shape, isa):
    x = np.ones(shape, DTYPES[dtype])
    bias = {"bias": np.zeros(shape[-1], DTYPES[dtype])} if shape else {}
    y, saved = F.dropout_forward(x, 0.5, seed=0, offset=1, residual=np.zeros_like(x), **bias)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    np.testing.assert_array_equal(y, 2 * F.dropout_mask(shape, 0.5, seed=0, offset=1))
    assert F.dropout_backward(x, saved).shape == shape
    if len(shape) > 1:
        F.dropout_forward(x, 0.5, seed=0, channel_axis=1)


@pytest.mark.slow
def test_more_than_2_to_the_32_elements():
    """4.3 GB of mask, then 4.3 GB of float16: more than 2**32 and more than 2**31 elements."""
    many, more = 2**32, 1000
    mask = F.dropout_mask(many + more, 0.3, **SEED)
    tail = F.dropout_mask(more, 0.3, **SEED, start=many)
    np.testing.assert_array_equal(mask[-more:], tail)
    assert (mask[:more] != tail).any()
    ones = np.broadcast_to(np.float16(1.0), many // 2 + more)
    y, _ = F.dropout_forward(ones, 0.3, **SEED)
    np.testing.assert_array_equal(y[-more:] > 0, mask[many // 2 : many // 2 + more])


# ---- writes that bypass the cache ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("start", [0, 1])  # determines where groups of words, and so tiles, begin
def test_writes_that_bypass_the_cache(start, dtype, isa):
    """If x is larger than the last-level cache, results bypass the cache: they are the same, and nothing
    around them is written."""
    x = values(1001, DTYPES[dtype])
    _, saved = F.dropout_forward(x, 0.3, **SEED, start=start)
    runs = [
        lambda out: F.dropout_forward(x, 0.3, **SEED, start=start, out=out)[0],
        lambda out: F.dropout_backward(x, saved, out=out),
    ]
    expected = [bits(run(np.empty_like(x))) for run in runs]
    _core.set_last_level_cache(1)
    try:
        for offset in (0, 1, 2, 4, 6, 8):
            room = np.full(64 + x.nbytes + 64, 0xA5, np.uint8)
            at = 64 + offset - room.ctypes.data % 64
            out = room[at : at + x.nbytes].view(x.dtype)
            for run, result in zip(runs, expected, strict=True):
                assert bits(run(out)) == result, offset
                assert (room[:at] == 0xA5).all(), offset
                assert (room[at + x.nbytes :] == 0xA5).all(), offset
    finally:
        _core.set_last_level_cache(0)


# ---- memory ----

PEAK = """
import numpy as np, fastopt
from fastopt import functional as F

def status(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))

def both(size):
    x, out = np.ones((size // 64, 64), np.float32), np.ones((size // 64, 64), np.float32)
    {layout}
    open("/proc/self/clear_refs", "w").write("5")  # resets the peak
    before = status("VmRSS")
    y, saved = F.dropout_forward(x, 0.1, seed=1, residual=x, bias=np.ones(64), out=out)
    F.dropout_backward(y, saved, out=y)
    return status("VmHWM") - before

both(1 << 18)  # code and threads' stacks
print(both(1 << 24))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak memory is read from /proc")
@pytest.mark.parametrize("layout", ["", "x = x[::-1]", "out = out.reshape(64, -1).T"])
def test_no_additional_memory_for_16_million_elements(layout):
    """In KiB: a mask of bits would be 2048, one of bytes 16384."""
    assert int(output(PEAK.format(layout=layout).replace("np.ones(64)", "np.ones(64, 'f4')"))) < 1024
