"""Invalid arguments of BatchNorm's backward pass and of its parts are rejected by name. Nothing is written."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from adam_setup import refused
from batch_norm_cases import batch
from fastopt import _core
from fastopt import functional as F
from optimizers_table import bits, values
from test_batch_norm_refusals import FORM, TWO, forward, over, parts
from test_refusals import NOT_AN_ARRAY, read_only

BACKWARD = {
    "another shape": (lambda b: b.dy[:3], ValueError, r"dy has shape \(3, 25\), but x has \(4, 25\)"),
    "another dtype": (
        lambda b: b.dy.astype(np.float16),
        TypeError,
        "dy has dtype float16, but x has float32",
    ),
    "another order": (lambda b: np.asfortranarray(b.dy), ValueError, "dy has shape .* the order of x"),
    "None": (lambda b: None, TypeError, "dy has type NoneType, expected an array"),
    "a number": (lambda b: 1.0, TypeError, "dy has type float, expected an array"),
    "a CUDA array": (lambda b: NOT_AN_ARRAY["a CUDA array"][0](b.dy), TypeError, "dy is a CUDA array"),
}


@pytest.mark.parametrize("row", BACKWARD.values(), ids=BACKWARD)
def test_mismatched_gradient_is_named(row):
    spoil, kind, says = row
    b = batch(FORM)
    _, saved = forward(b)
    sums = F.batch_norm_backward_reduce(b.dy, saved)
    out = np.zeros_like(b.x)
    for call in (
        lambda dy: F.batch_norm_backward(dy, saved, out=out),
        lambda dy: F.batch_norm_backward_reduce(dy, saved),
        lambda dy: F.batch_norm_backward_apply(dy, saved, sums, out=out),
    ):
        with refused(kind, "^" + says, [*parts(b), out]):
            call(spoil(b))


def test_invalid_out_of_backward_is_rejected():
    b = batch(FORM)
    _, saved = forward(b)
    half, dy = over(b.dy, b.dy)
    for out, gradient, says in (
        (read_only(b.dy), b.dy, "^out is read-only"),
        (np.repeat(b.dy, 2, 0)[::2], b.dy, r"^out has shape .* expected a dense array"),
        (values((4, 24)), b.dy, r"^out has shape \(4, 24\), but x has \(4, 25\)"),
        (half, dy, TWO.format("out", "dy")),
    ):
        with refused(ValueError, says, [*parts(b), dy]):
            F.batch_norm_backward(gradient, saved, out=out)


@pytest.mark.parametrize("saved", [None, (1, 2), {}])
def test_invalid_saved_is_rejected(saved):
    b = batch(FORM)
    says = f"^saved has type {type(saved).__name__}, expected what a forward pass returned"
    sums = F.BatchNormSums(np.zeros(25), np.zeros(25))
    with refused(TypeError, says, parts(b)):
        F.batch_norm_backward(b.dy, saved)
    with refused(TypeError, says, parts(b)):
        F.batch_norm_backward_apply(b.dy, saved, sums)
    with refused(TypeError, says, parts(b)):
        F.batch_norm_backward_reduce(b.dy, saved)


INVALID_MOMENTS = {
    "none": (None, " has type NoneType, expected BatchMoments"),
    "a number": (1, " has type int, expected BatchMoments"),
    "too few": ((4.0, np.zeros(25)), r" has length 2, expected 3 \(n, mean, m2\)"),
    "text": ((4.0, np.zeros(25), ["a"] * 25), ".m2 must hold real numbers, got"),
    "a complex mean": ((4.0, np.zeros(25) + 1j, np.zeros(25)), ".mean must hold real numbers, got"),
    "no count": ((None, np.zeros(25), np.zeros(25)), ".n must be a number, got None"),
    "counts": ((np.ones(25), np.zeros(25), np.zeros(25)), ".n must be a number, got array"),
}


@pytest.mark.parametrize(("moments", "says"), INVALID_MOMENTS.values(), ids=INVALID_MOMENTS)
def test_invalid_moments_are_rejected(moments, says):
    b = batch(FORM)
    with refused(TypeError, "^moments" + says, parts(b)):
        F.batch_norm_apply(b.x, moments)
    good = F.batch_norm_moments(b.x)
    with pytest.raises(TypeError, match=r"^parts\[1\]" + says):
        F.batch_norm_join([good, moments])
    with pytest.raises(TypeError, match=r"^parts\[0\] has type float, expected BatchMoments"):
        F.batch_norm_join(good)
    with pytest.raises(TypeError, match=r"^parts has type NoneType, expected a list of BatchMoments"):
        F.batch_norm_join(None)


@pytest.mark.parametrize("n", [math.nan, math.inf, -math.inf, -1, 0.5, np.float64(-4.0)])
def test_moments_with_an_invalid_count_are_rejected(n):
    b = batch(FORM)
    moments = F.batch_norm_moments(b.x)._replace(n=n)
    says = r"\.n must be a number of values, an integer of 0 or more, got " + re.escape(repr(n))
    with refused(ValueError, "^moments" + says, parts(b)):
        F.batch_norm_apply(b.x, moments, None, None, b.running_mean, b.running_var)
    with pytest.raises(ValueError, match=r"^parts\[1\]" + says):
        F.batch_norm_join([F.batch_norm_moments(b.x), moments])


def test_moments_with_count_0_are_rejected_for_a_nonempty_batch():
    b = batch(FORM)
    nothing = F.batch_norm_moments(b.x[:0])
    with refused(ValueError, r"^moments\.n is 0, but x has shape \(4, 25\); expected", parts(b)):
        F.batch_norm_apply(b.x, nothing, None, None, b.running_mean, b.running_var)
    y, _ = F.batch_norm_apply(b.x[:0], nothing)
    assert y.shape == (0, 25)


@pytest.mark.parametrize("sums", [None, (1.0,), [np.zeros(25)] * 2])
def test_invalid_sums_are_rejected(sums):
    b = batch(FORM)
    _, saved = forward(b)
    with refused(TypeError, "^sums has (type|length).*, expected (BatchNormSums|2)", parts(b)):
        F.batch_norm_backward_apply(b.dy, saved, sums)


def test_plain_tuples_are_accepted_as_moments():
    b = batch(FORM)
    moments = F.batch_norm_moments(b.x)
    assert bits(F.batch_norm_join([tuple(moments)]).m2) == bits(moments.m2)
    assert bits(F.batch_norm_apply(b.x, tuple(moments))[0]) == bits(F.batch_norm_apply(b.x, moments)[0])


def test_moments_and_sums_of_another_shape_are_rejected():
    b = batch(FORM)
    _, saved = forward(b)
    few = np.zeros(24)
    for moments, name in (
        (F.BatchMoments(4.0, few, np.zeros(25)), "moments.mean"),
        (F.BatchMoments(4.0, np.zeros(25), few), "moments.m2"),
    ):
        with refused(ValueError, rf"^{name} has shape \(24,\), expected \(25,\)", parts(b)):
            F.batch_norm_apply(b.x, moments)
        other = F.batch_norm_moments(b.x)
        with pytest.raises(ValueError, match=r"^moments.m(ean|2) has shape \(2\d,\), expected"):
            F.batch_norm_join([other, moments])
    for sums, name in (
        (F.BatchNormSums(few, np.zeros(25)), "sums.dy"),
        (F.BatchNormSums(np.zeros(25), few), "sums.dy_centered"),
    ):
        with refused(ValueError, rf"^{name} has shape \(24,\), expected \(25,\)", parts(b)):
            F.batch_norm_backward_apply(b.dy, saved, sums)
    with pytest.raises(ValueError, match=r"^parts is empty"):
        F.batch_norm_join([])


@pytest.mark.parametrize("name", ["dgamma", "dbeta", "dresidual"])
def test_every_output_array_of_the_compiled_backward_pass_is_checked(name):
    """The public functions pass new arrays."""
    b = batch(FORM)
    _, saved = forward(b)
    results = {"dgamma": values(25), "dbeta": values(25), "dresidual": values(FORM.shape)}
    dx = np.zeros_like(b.x)
    for bad, says in (
        (read_only(results[name]), f"^{name} is read-only, expected an array to write to"),
        (np.repeat(results[name], 2, -1)[..., ::2], rf"^{name} has shape .* expected a dense array"),
        (dx[0] if results[name].ndim == 1 else dx, TWO.format("out", name)),
    ):
        with refused(ValueError, says, [*parts(b), *results.values(), bad, dx]):
            _core.batch_norm_backward(b.dy, saved, dx, **{**results, name: bad}, sums=None)


def test_joining_changes_no_part():
    a, b = (F.batch_norm_moments(values((6, 3), seed=s)) for s in (0, 1))
    before = [bits(v) for v in (a.mean, a.m2, b.mean, b.m2)]
    F.batch_norm_join([a, b])
    assert [bits(v) for v in (a.mean, a.m2, b.mean, b.m2)] == before


def test_overwrites_is_true_only_for_arrays_of_the_same_shape():
    dy = values((4, 25))
    outs = {"itself": dy, "a row": dy[0], "as a column": dy.reshape(100, 1), "a part": dy[:3]}
    written = {name: _core.batch_norm_overwrites(dy, out) for name, out in outs.items()}
    assert written == {"itself": True, "a row": False, "as a column": False, "a part": False}
