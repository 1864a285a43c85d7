"""Gradients whose elements are far apart in the order of their parameter, such as a transposed one: they are
gathered some rows at a time (csrc/cpu/gather_buffer.cpp), and steps have the bits of a contiguous copy."""

from __future__ import annotations

import numpy as np
import pytest

import fastopt
from fastopt import _core
from layouts import permuted, spread
from step_cases import image
from tolerance import DTYPES

LINE, ROOM = 64, 128 << 10  # bytes: of a cache line, and that are brought at a time


def across(shape: tuple[int, ...], order: tuple[int, ...]):
    return lambda rng, dtype: permuted(rng.standard_normal(shape).astype(dtype), order)


def long_rows(more: int):
    """Two rows just fill a room, or are some columns more; there are as many as make neighbours far."""

    def make(rng, dtype):
        size = np.dtype(dtype).itemsize
        return across((LINE // size + 1, ROOM // 2 // size + more), (1, 0))(rng, dtype)

    return make


def turned_back(rng, dtype):
    return spread(across((150, 270), (1, 0))(rng, dtype).T, (-1, 1)).T[:, ::-1]


def column(rng, dtype):
    return np.broadcast_to(rng.standard_normal((3, 1, 90)).astype(dtype).T, (90, 500, 3))


FAR = {
    "transposed": across((301, 257), (1, 0)),
    "by powers of two": across((128, 1024), (1, 0)),
    "one room to the element": across((256, 128), (1, 0)),
    "two rows a room": long_rows(0),
    "rows beyond half a room": long_rows(1),
    "two columns": across((9000, 2), (1, 0)),
    "channels last": across((6, 40, 21, 20), (0, 2, 3, 1)),
    "axes reversed": across((33, 20, 70), (2, 1, 0)),
    "the middle one last": across((40, 7, 200), (2, 0, 1)),
    "backwards": turned_back,
    "a column for all": column,
}
AROUND = [{}, {"clip_norm": 1.0}, {"clip_norm": 1.0, "clip_norm_type": 1, "clip_scope": "tensor"}]


def after(grads: list[np.ndarray], dtype, options) -> str:
    """The bits of parameters and state after two steps with these."""
    params = [np.full(g.shape, 0.5, dtype) for g in grads]
    opt = fastopt.Adam(params, **options)
    opt.step(grads)
    opt.step(grads)
    return image(params, opt.m, opt.v)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("how", FAR)
@pytest.mark.parametrize("options", AROUND, ids=str)
def test_a_far_gradient_has_the_bits_of_its_copy(options, how, dtype, isa):
    kind = DTYPES[dtype]
    near = np.linspace(-1, 1, 777).astype(kind)
    far = FAR[how](np.random.default_rng(7), kind)
    assert abs(far.strides[-1]) >= LINE
    expected = after([near, np.ascontiguousarray(far), near], kind, options)
    _core.set_parallel_cutoff(0)
    for threads in (1, 2, 3):
        fastopt.set_num_threads(threads)
        assert after([near, far, near], kind, options) == expected, threads


@pytest.mark.parametrize("on_nonfinite", ["skip", "raise"])
def test_what_is_not_finite_is_found_there(on_nonfinite):
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


@pytest.mark.parametrize("options", AROUND, ids=str)
def test_each_of_several_is_read_by_its_own_walk(options):
    """At one place in memory, in other orders, each within what is brought at a time."""
    grad = np.random.default_rng(3).standard_normal((100, 100)).astype(np.float32)
    views = [grad.T, grad[::-1].T, grad[:, ::-1].T, (2 * grad).T]
    copies = [np.ascontiguousarray(v) for v in views]
    assert after(views, np.float32, options) == after(copies, np.float32, options)


@pytest.mark.parametrize("columns", [700, 707, 731])
def test_the_norm_of_one_block_of_a_large_one(columns):
    """Its values differ so much that the last bits of the norm depend on which lane adds which of them."""
    c_order = np.zeros((300, columns))
    c_order.flat[12288:16384] = np.exp(5 * np.random.default_rng(0).standard_normal(4096))
    copy = np.asfortranarray(c_order)  # far from neighbour to neighbour in the order of its parameter
    params = [np.zeros_like(c_order) for _ in range(2)]
    for p, g in zip(params, (c_order, copy), strict=True):
        fastopt.SGD([p], lr=1.0, clip_norm=1.0).step([g])
    assert image(params[:1]) == image(params[1:])


@pytest.mark.parametrize("options", [{"clip_norm": 1.0}], ids=str)
def test_rows_that_begin_within_a_block_of_the_norm(options):
    """More of them than are brought at a time, so that a visit begins in the middle of a row."""
    grad = np.random.default_rng(5).standard_normal((700, 900)).astype(np.float32).T
    assert after([grad], np.float32, options) == after(
        [np.ascontiguousarray(grad)], np.float32, options
    )
