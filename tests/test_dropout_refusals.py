"""Dropout rejects what it cannot do, with a message that names the argument, before anything is written."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastopt
from adam_setup import refused
from fastopt import functional as F
from optimizers_table import values

SHAPE = (4, 6)
ANY_TYPE = "float16, bfloat16, float32 or float64"
NAN = float("nan")


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def arrays():
    """Return all arrays that forward takes; none of them overlap."""
    return {
        "x": values(SHAPE),
        "residual": values(SHAPE, seed=1),
        "bias": values(SHAPE[-1], seed=2),
        "out": values(SHAPE, seed=3),
    }


def call(s, **options):
    return F.dropout_forward(
        s["x"], **{k: v for k, v in s.items() if k != "x"}, **{"seed": 1, **options}
    )


# ---- options ----

WORDS = "scaling must be one of 'inverted', 'test_time', got "
AXIS = "channel_axis must be an axis other than 0, the batch, of an array of shape (4, 6), got "
OPTIONS = [
    ({"p": -0.1}, ValueError, "p must lie in [0, 1], got -0.1"),
    ({"p": 1.0000001}, ValueError, "p must lie in [0, 1], got 1.0000001"),
    ({"p": NAN}, ValueError, "p must lie in [0, 1], got nan"),
    ({"p": 10**400}, ValueError, "p must lie in [0, 1], got 1000"),
    ({"p": True}, TypeError, "p must be a number, got True"),
    ({"p": "0.5"}, TypeError, "p must be a number, got '0.5'"),
    ({"p": None}, TypeError, "p must be a number, got None"),
    ({"seed": -1}, ValueError, "seed must lie in [0, 2**64), got -1"),
    ({"seed": 2**64}, ValueError, "seed must lie in [0, 2**64), got 18446744073709551616"),
    ({"seed": 0.5}, TypeError, "seed must be an integer, got 0.5"),
    ({"seed": True}, TypeError, "seed must be an integer, got True"),
    ({"offset": -1}, ValueError, "offset must lie in [0, 2**64), got -1"),
    ({"offset": None}, TypeError, "offset must be an integer, got None"),
    ({"offset": False}, TypeError, "offset must be an integer, got False"),
    ({"start": -1}, ValueError, "start must lie in [0, 2**62), got -1"),
    ({"start": 2**62}, ValueError, "start must lie in [0, 2**62), got 4611686018427387904"),
    ({"start": 1.0}, TypeError, "start must be an integer, got 1.0"),
    ({"start": True}, TypeError, "start must be an integer, got True"),
    ({"training": 1}, TypeError, "training must be True or False, got 1"),
    ({"alpha": "yes"}, TypeError, "alpha must be True or False, got 'yes'"),
    ({"scaling": "none"}, ValueError, WORDS + "'none'"),
    ({"scaling": None}, ValueError, WORDS + "None"),
    (
        {"alpha": True, "scaling": "test_time"},
        ValueError,
        "alpha dropout needs scaling='inverted', got 'test_time'",
    ),
    ({"channel_axis": 0}, ValueError, AXIS + "0"),
    ({"channel_axis": 2}, ValueError, AXIS + "2"),
    ({"channel_axis": -2}, ValueError, AXIS + "-2"),
    ({"channel_axis": 2**70}, ValueError, AXIS + "1180591620717411303424"),
    ({"channel_axis": -(2**70)}, ValueError, AXIS + "-1180591620717411303424"),
    ({"channel_axis": True}, TypeError, "channel_axis must be None or an integer, got True"),
    ({"channel_axis": 1.0}, TypeError, "channel_axis must be None or an integer, got 1.0"),
]


@pytest.mark.parametrize(("options", "kind", "says"), OPTIONS, ids=lambda v: str(v)[:40])
def test_invalid_options_of_forward(options, kind, says):
    s = arrays()
    with refused(kind, "^" + re.escape(says), s.values()):
        call(s, **options)


@pytest.mark.parametrize(("options", "kind", "says"), OPTIONS, ids=lambda v: str(v)[:40])
def test_invalid_options_of_mask_backward_and_layer(options, kind, says):
    """They reject what forward rejects, for the options that they have; the layer does so when it is
    constructed."""
    message = "^" + re.escape(says)
    if not options.keys() & {"training", "scaling", "alpha"}:
        with pytest.raises(kind, match=message):
            F.dropout_mask(SHAPE, **{"p": 0.5, "seed": 1, **options})
    dy = values(SHAPE)
    _, saved = F.dropout_forward(dy, 0.5, seed=1)
    with refused(kind, message, [dy]):
        F.dropout_backward(dy, saved._replace(**options), out=dy)
    if not options.keys() & {"seed", "offset", "start", "training"} and "an axis" not in says:
        with pytest.raises(kind, match=message):
            fastopt.Dropout(**options)


# ---- arrays ----

TRANSPOSED = "out has shape (4, 6) and strides (48, 8), expected a dense array"
ARRAYS = {
    "x: a list": (
        "x",
        lambda a: a.tolist(),
        TypeError,
        f"x has type list, expected an array of {ANY_TYPE}",
    ),
    "x: int": ("x", lambda a: a.astype(int), TypeError, f"x has dtype int64, expected {ANY_TYPE}"),
    "x: None": (
        "x",
        lambda a: None,
        TypeError,
        f"x has type NoneType, expected an array of {ANY_TYPE}",
    ),
    "residual: a number": (
        "residual",
        lambda a: 1.0,
        TypeError,
        "residual has type float, expected an array",
    ),
    "residual: shape": (
        "residual",
        lambda a: a[:3],
        ValueError,
        "residual has shape (3, 6), but x has (4, 6)",
    ),
    "residual: dtype": (
        "residual",
        lambda a: a.astype("f8"),
        TypeError,
        "residual has dtype float64, but x has float32",
    ),
    "bias: length": (
        "bias",
        lambda a: a[:4],
        ValueError,
        "bias has shape (4,), but x has (4, 6); expected one value per column",
    ),
    "bias: axes": (
        "bias",
        lambda a: a[None],
        ValueError,
        "bias has shape (1, 6), but x has (4, 6); expected",
    ),
    "bias: dtype": (
        "bias",
        lambda a: a.astype("f8"),
        TypeError,
        "bias has dtype float64, but x has float32; expected the same or float32",
    ),
    "out: shape": ("out", lambda a: a.T, ValueError, "out has shape (6, 4), but x has (4, 6)"),
    "out: dtype": (
        "out",
        lambda a: a.astype("f2"),
        TypeError,
        "out has dtype float16, but x has float32",
    ),
    "out: read-only": ("out", read_only, ValueError, "out is read-only, expected an array to write to"),
    "out: gaps": ("out", lambda a: np.repeat(a, 2, 1)[:, ::2], ValueError, TRANSPOSED),
}


@pytest.mark.parametrize(("name", "bad", "kind", "says"), ARRAYS.values(), ids=ARRAYS)
def test_invalid_arrays_of_forward(name, bad, kind, says):
    s = arrays()
    good = list(s.values())
    s[name] = bad(s[name])
    with refused(kind, "^" + re.escape(says), [*good, *s.values()]):
        call(s)
    if name != "out":
        with pytest.raises(kind, match="^" + re.escape(says)):
            call({k: v for k, v in s.items() if k != "out"})


def test_x_of_a_read_only_array_type_is_rejected():
    """Unless ``out`` is given."""
    jnp = pytest.importorskip("jax.numpy", reason="JAX is not installed")
    x, out = jnp.ones(SHAPE, jnp.float32), np.empty(SHAPE, np.float32)
    says = "{} has type ArrayImpl, and new arrays of this type are read-only; pass {} as a NumPy array"
    with pytest.raises(TypeError, match="^" + says.format("x", "x")):
        F.dropout_forward(x, 0.5, seed=1)
    y, saved = F.dropout_forward(x, 0.5, seed=1, out=out)
    assert y is out
    with pytest.raises(TypeError, match="^" + says.format("dy", "dy")):
        F.dropout_backward(x, saved)


@pytest.mark.parametrize("name", ["x", "residual", "bias"])
def test_out_that_partially_overlaps_an_input_is_rejected(name):
    memory = values(40)
    s = arrays() | {"out": memory[8:32].reshape(SHAPE)}
    s[name] = memory[4 : 4 + s[name].size].reshape(s[name].shape)
    if name == "bias":
        s[name] = memory[6:12]
    with refused(ValueError, f"^{name} and out overlap in memory$", [memory, *s.values()]):
        call(s)


@pytest.mark.parametrize("name", ["x", "residual"])
def test_out_in_a_gap_of_an_input_is_rejected(name):
    """Only the range that each array spans is considered, not whether they share a byte."""
    memory = values((4, 30))
    s = arrays() | {name: memory[:, :6], "out": memory[0, 6:].reshape(SHAPE)}
    assert not np.shares_memory(s[name], s["out"])
    with refused(ValueError, f"^{name} and out overlap in memory$", [memory, *s.values()]):
        call(s)


@pytest.mark.parametrize("name", ["x", "residual"])
def test_out_that_is_an_input_in_another_order_is_rejected(name):
    """An element would be overwritten before it is read."""
    square = values((5, 5))
    s = {"x": values((5, 5), seed=1), "residual": values((5, 5), seed=2), "out": square, name: square.T}
    with refused(ValueError, f"^{name} and out overlap in memory$", s.values()):
        call(s)


def test_invalid_arrays_of_backward():
    dy = values(SHAPE)
    _, saved = F.dropout_forward(dy, 0.5, seed=1)
    for bad, kind, says in (
        (dy.tolist(), TypeError, f"dy has type list, expected an array of {ANY_TYPE}"),
        (dy.astype(bool), TypeError, f"dy has dtype bool, expected {ANY_TYPE}"),
        (dy.T, ValueError, "dy has shape (6, 4), but the forward's x had (4, 6)"),
        (dy.ravel(), ValueError, "dy has shape (24,), but the forward's x had (4, 6)"),
    ):
        out = values(SHAPE, seed=1)
        with refused(kind, "^" + re.escape(says), [dy, out]):
            F.dropout_backward(bad, saved, out=out)
        with pytest.raises(kind, match="^" + re.escape(says)):
            F.dropout_backward(bad, saved)
    memory = values(30)
    with refused(ValueError, "^dy and out overlap in memory$", [memory]):
        F.dropout_backward(memory[:24].reshape(SHAPE), saved, out=memory[6:].reshape(SHAPE))
    with refused(ValueError, "^out is read-only", [dy]):
        F.dropout_backward(dy, saved, out=read_only(dy))


@pytest.mark.parametrize("saved", [None, (1, 2, 0.5), np.ones(SHAPE, bool)], ids=repr)
def test_saved_must_come_from_forward(saved):
    says = f"saved has type {type(saved).__name__}, expected what dropout_forward returned"
    with pytest.raises(TypeError, match=re.escape(says)):
        F.dropout_backward(values(SHAPE), saved)


def test_a_bias_needs_a_last_axis():
    with pytest.raises(ValueError, match=re.escape("bias has shape (1,), but x has ()")):
        F.dropout_forward(np.ones(()), seed=1, bias=np.ones(1))


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)], ids=["x first", "out first"])
@pytest.mark.parametrize("name", ["x", "residual", "bias"])
def test_adjacent_arrays_do_not_overlap(name, order):
    memory = np.ones(2048, np.float32)
    given, out = (memory[:1024], memory[1024:])[order]
    s = {"x": values(1024), "out": out, name: given}
    assert call(s)[0] is out


def test_axis_of_length_one_may_have_any_stride():
    out = np.ones((1, 8), np.float32)
    x = np.lib.stride_tricks.as_strided(out, strides=(1000, 4))
    assert F.dropout_forward(x, 0.5, seed=1, out=out)[0] is out
