"""Gradients with large strides in the order of their parameter, such as a transposed one: they are gathered a
few rows at a time (csrc/cpu/gather_buffer.cpp), and steps give the same bits as with contiguous copies."""

from __future__ import annotations

import numpy as np
import pytest

import fastopt
from fastopt import _core
from layouts import permuted, spread
from step_cases import image
from tolerance import DTYPES

CACHE_LINE, BUFFER = 64, 128 << 10  # bytes in a cache line, and bytes gathered at a time


def transposed(shape: tuple[int, ...], order: tuple[int, ...]):
    return lambda rng, dtype: permuted(rng.standard_normal(shape).astype(dtype), order)


def long_rows(more: int):
    """Two rows fill the buffer, or have ``more`` columns too many; the number of rows makes strides large."""

    def make(rng, dtype):
        size = np.dtype(dtype).itemsize
        return transposed((CACHE_LINE // size + 1, BUFFER // 2 // size + more), (1, 0))(rng, dtype)

    return make


def negative_strides(rng, dtype):
    return spread(transposed((150, 270), (1, 0))(rng, dtype).T, (-1, 1)).T[:, ::-1]


def column(rng, dtype):
    return np.broadcast_to(rng.standard_normal((3, 1, 90)).astype(dtype).T, (90, 500, 3))


STRIDED = {
    "transposed": transposed((301, 257), (1, 0)),
    "by powers of two": transposed((128, 1024), (1, 0)),
    "exactly one buffer": transposed((256, 128), (1, 0)),
    "two rows fill the buffer": long_rows(0),
    "rows longer than half the buffer": long_rows(1),
    "two columns": transposed((9000, 2), (1, 0)),
    "channels last": transposed((6, 40, 21, 20), (0, 2, 3, 1)),
    "axes reversed": transposed((33, 20, 70), (2, 1, 0)),
    "middle axis last": transposed((40, 7, 200), (2, 0, 1)),
    "negative strides": negative_strides,
    "broadcast column": column,
}
OPTIONS = [{}, {"clip_norm": 1.0}, {"clip_norm": 1.0, "clip_norm_type": 1, "clip_scope": "tensor"}]


def after(grads: list[np.ndarray], dtype, options) -> str:
    """Return the bits of parameters and state after two steps with these gradients."""
    params = [np.full(g.shape, 0.5, dtype) for g in grads]
    opt = fastopt.Adam(params, **options)
    opt.step(grads)
    opt.step(grads)
    return image(params, opt.m, opt.v)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("how", STRIDED)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_strided_gradient_gives_the_same_bits_as_its_contiguous_copy(options, how, dtype, isa):
    kind = DTYPES[dtype]
    near = np.linspace(-1, 1, 777).astype(kind)
    far = STRIDED[how](np.random.default_rng(7), kind)
    assert abs(far.strides[-1]) >= CACHE_LINE
    expected = after([near, np.ascontiguousarray(far), near], kind, options)
    _core.set_parallel_cutoff(0)
    for threads in (1, 2, 3):
        fastopt.set_num_threads(threads)
        assert after([near, far, near], kind, options) == expected, threads


@pytest.mark.parametrize("on_nonfinite", ["skip", "raise"])
def test_nonfinite_value_in_a_transposed_gradient_is_found(on_nonfinite):
    param = np.ones((700, 300), np.float32)
    grad = np.zeros((300, 700), np.float32)
    grad[299, 698] = np.inf
    opt = fastopt.SGD([param], lr=0.1, on_nonfinite=on_nonfinite)
    if on_nonfinite == "raise":
        with pytest.raises(FloatingPointError):
            opt.step([grad.T])
    else:
        opt.step([grad.T])
    assert (param == 1).all()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_views_of_one_array_are_each_read_in_their_own_order(options):
    """The first three share memory but differ in order, and each view fits into the buffer."""
    grad = np.random.default_rng(3).standard_normal((100, 100)).astype(np.float32)
    views = [grad.T, grad[::-1].T, grad[:, ::-1].T, (2 * grad).T]
    copies = [np.ascontiguousarray(v) for v in views]
    assert after(views, np.float32, options) == after(copies, np.float32, options)


@pytest.mark.parametrize("columns", [700, 707, 731])
def test_norm_of_one_block_of_a_fortran_order_gradient(columns):
    """The values differ so much that the last bits of the norm depend on which lane adds which value."""
    c_order = np.zeros((300, columns))
    c_order.flat[12288:16384] = np.exp(5 * np.random.default_rng(0).standard_normal(4096))
    copy = np.asfortranarray(c_order)  # large strides in the order of its parameter
    params = [np.zeros_like(c_order) for _ in range(2)]
    for p, g in zip(params, (c_order, copy), strict=True):
        fastopt.SGD([p], lr=1.0, clip_norm=1.0).step([g])
    assert image(params[:1]) == image(params[1:])


@pytest.mark.parametrize("options", [{"clip_norm": 1.0}], ids=str)
def test_rows_that_begin_inside_a_norm_block(options):
    """There are more rows than fit into the buffer, so that a gather begins in the middle of a row."""
    grad = np.random.default_rng(5).standard_normal((700, 900)).astype(np.float32).T
    assert after([grad], np.float32, options) == after(
        [np.ascontiguousarray(grad)], np.float32, options
    )
