"""Invalid arguments of BatchNorm are rejected: for each, the argument, the type of the error and its message.
Nothing is written."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from adam_setup import refused
from batch_norm_cases import BY_ID, Form, batch
from fastopt import functional as F
from optimizers_table import bits, values
from test_refusals import INVALID_DTYPE, NOT_AN_ARRAY, read_only

FORM = Form((4, 25))
CASE = BY_ID["residual-relu"]


def parts(b):
    return [v for v in vars(b).values() if isinstance(v, np.ndarray)]


def forward(b, **more):
    return F.batch_norm_forward(b.x, **(b.given(CASE) | more))


def apply(b, **more):
    given = {k: v for k, v in (b.given(CASE) | more).items() if k != "training"}
    return F.batch_norm_apply(b.x, F.batch_norm_moments(batch(FORM).x), **given)


FACES = {"forward": forward, "apply": apply}

# ---- arrays ----

PLACES = ("x", "gamma", "beta", "running_mean", "running_var", "residual", "out")
MAY_BE_NONE = ("gamma", "beta", "residual", "out")
BAD = {**NOT_AN_ARRAY, **INVALID_DTYPE}


def rows():
    for place in PLACES:
        for what, (spoil, says) in BAD.items():
            if not (what == "None" and place != "x"):
                yield f"{place}: {what}", (place, spoil, says)


ROWS = dict(rows())


@pytest.mark.parametrize("face", FACES.values(), ids=FACES)
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_unsupported_array_types_are_named(row, face):
    place, spoil, says = row
    b = batch(FORM)
    everything = parts(b)
    if place == "x":
        b.x = spoil(b.x)
        kind = "has type .*, expected an array" if says.startswith("has type") else re.escape(says)
        with refused(TypeError, f"^x {kind}", everything):
            face(b)
        return
    good = b.x.copy() if place == "out" else getattr(b, place)
    with refused(TypeError, "^" + re.escape(f"{place} {says}"), everything):
        face(b, **{place: spoil(good)})


def by(**more):
    return lambda b: forward(b, **{k: v(b) if callable(v) else v for k, v in more.items()})


def longer(a):
    return np.concatenate([a, a])


def over(a, b):
    """Arrays like ``a`` and ``b``; the memory of the former begins in the middle of that of the latter."""
    memory = np.zeros(a.size + b.size, a.dtype)
    return memory[b.size // 2 :][: a.size].reshape(a.shape), memory[: b.size].reshape(b.shape)


def overlapping(b, one, other):
    """A forward pass in which ``one`` and ``other`` half overlap. Each is an array of the batch or ``out``."""
    b.out = np.empty_like(b.x)
    mine, theirs = over(getattr(b, one), getattr(b, other))
    mine[...], theirs[...] = 1, 1
    setattr(b, one, mine)
    setattr(b, other, theirs)
    return forward(b, out=b.out)


TWO = r"^({0} and {1}|{1} and {0}) overlap in memory$"
ARRAYS = {
    "gamma of another length": (by(gamma=values(24)), r"^gamma has shape \(24,\), expected \(25,\)"),
    "beta of two axes": (by(beta=values((1, 25))), r"^beta has shape \(1, 25\), expected \(25,\)"),
    "a number of axes": (by(running_mean=np.float32(1)), r"^running_mean has shape \(\), expected"),
    "running_var too long": (
        by(running_var=lambda b: longer(b.running_var)),
        r"^running_var has shape \(50,\), expected \(25,\): one value for each channel of x",
    ),
    "residual of another shape": (
        by(residual=values((25, 4))),
        r"^residual has shape \(25, 4\), but x has \(4, 25\)",
    ),
    "out of another shape": (by(out=values((4, 24))), r"^out has shape \(4, 24\), but x has \(4, 25\)"),
    "a mean alone": (by(running_var=None), "^pass both running_mean and running_var"),
    "a variance alone": (by(running_mean=None), "^pass both running_mean and running_var"),
    "read-only mean": (
        by(running_mean=lambda b: read_only(b.running_mean)),
        "^running_mean is read-only, expected an array to write to",
    ),
    "read-only variance": (
        by(running_var=lambda b: read_only(b.running_var)),
        "^running_var is read-only, expected an array to write to",
    ),
    "strided mean": (
        by(running_mean=lambda b: longer(b.running_mean)[::2]),
        r"^running_mean has shape \(25,\) and strides \(8,\), expected a dense array",
    ),
    "read-only out": (by(out=lambda b: read_only(b.x)), "^out is read-only"),
    "strided out": (
        by(out=lambda b: np.repeat(b.x, 2, 0)[::2]),
        r"^out has shape \(4, 25\) and strides \(200, 4\), expected a dense array",
    ),
    "out in another order": (
        by(out=lambda b: np.asfortranarray(b.x)),
        r"^out has shape .* in the order of x, which has strides \(100, 4\)",
    ),
    "out over x": (lambda b: overlapping(b, "out", "x"), TWO.format("out", "x")),
    "out over residual": (lambda b: overlapping(b, "out", "residual"), TWO.format("out", "residual")),
    "out over gamma": (lambda b: overlapping(b, "out", "gamma"), TWO.format("out", "gamma")),
    "out over beta": (lambda b: overlapping(b, "out", "beta"), TWO.format("out", "beta")),
    "out over the mean": (
        lambda b: overlapping(b, "out", "running_mean"),
        TWO.format("out", "running_mean"),
    ),
    "mean over variance": (
        lambda b: overlapping(b, "running_mean", "running_var"),
        TWO.format("running_mean", "running_var"),
    ),
    "variance in x": (lambda b: overlapping(b, "running_var", "x"), TWO.format("running_var", "x")),
    "mean is gamma": (
        by(running_mean=lambda b: b.gamma),
        TWO.format("running_mean", "gamma"),
    ),
}


@pytest.mark.parametrize("row", ARRAYS.values(), ids=ARRAYS)
def test_mismatched_arrays_are_named(row):
    refuse, says = row
    b = batch(FORM)
    with refused(ValueError, says, parts(b)):
        refuse(b)


@pytest.mark.parametrize("what", ["gamma", "residual", "x"])
def test_inputs_and_statistics_in_evaluation_may_be_read_only(what):
    b = batch(FORM)
    setattr(b, what, read_only(getattr(b, what)))
    expected = batch(FORM)
    assert bits(forward(b)[0]) == bits(forward(expected)[0])
    b.running_mean, b.running_var = read_only(b.running_mean), read_only(b.running_var)
    assert bits(forward(b, training=False)[0]) == bits(forward(expected, training=False)[0])


def test_out_that_overlaps_statistics_in_evaluation_is_rejected():
    for name in ("running_mean", "running_var"):
        b = batch(FORM)
        with refused(ValueError, TWO.format("out", name), parts(b)):
            F.batch_norm_forward(
                b.x,
                **{"running_mean": b.running_mean, "running_var": b.running_var, name: b.dy[0]},
                training=False,
                out=b.dy,
            )


def test_library_with_read_only_arrays_requires_out():
    """With ``out``, the same call succeeds."""
    jnp = pytest.importorskip("jax.numpy", reason="JAX is not installed")
    x, out = jnp.ones((4, 3), jnp.float32), np.empty((4, 3), np.float32)
    with pytest.raises(TypeError, match=r"^x has type ArrayImpl, and new arrays of this type are"):
        F.batch_norm_forward(x)
    assert F.batch_norm_forward(x, out=out)[0] is out


def test_residual_and_out_of_another_dtype():
    for name in ("residual", "out"):
        b = batch(FORM)
        with refused(TypeError, f"^{name} has dtype float64, but x has float32", parts(b)):
            forward(b, **{name: b.x.astype(np.float64)})


# ---- options ----

ONE_OF = "must be one of"
OPTIONS = [
    ("training", 1, TypeError, "training must be True or False, got 1"),
    ("training", "yes", TypeError, "training must be True or False, got 'yes'"),
    ("unbiased", None, TypeError, "unbiased must be True or False, got None"),
    ("momentum", 1.5, ValueError, r"momentum must lie in \[0, 1\], got 1.5"),
    ("momentum", -0.1, ValueError, r"momentum must lie in \[0, 1\], got -0.1"),
    ("momentum", math.nan, ValueError, r"momentum must lie in \[0, 1\], got nan"),
    ("momentum", "0.1", TypeError, "momentum must be a number, got '0.1'"),
    ("momentum", True, TypeError, "momentum must be a number, got True"),
    ("momentum", None, ValueError, r"momentum=None \(cumulative average\) requires batch="),
    ("momentum_mode", "torch", ValueError, f"momentum_mode {ONE_OF} 'update', 'keep', got 'torch'"),
    ("eps", -1e-5, ValueError, r"eps must lie in \[0, inf\), got -1e-05"),
    ("eps", math.inf, ValueError, r"eps must lie in \[0, inf\), got inf"),
    ("eps", math.nan, ValueError, r"eps must lie in \[0, inf\), got nan"),
    ("eps", None, TypeError, "eps must be a number, got None"),
    ("axis", 2, ValueError, r"axis must lie in \[-2, 1\] for x of shape \(4, 25\), got 2"),
    ("axis", -3, ValueError, r"axis must lie in \[-2, 1\] for x of shape \(4, 25\), got -3"),
    ("eps", np.ones(2), TypeError, r"eps must be a number, got array\(\[1., 1.\]\)"),
    ("eps", 10**400, ValueError, r"eps must lie in \[0, inf\), got 1000"),
    ("activation", ["relu"], ValueError, rf"activation {ONE_OF} None, 'relu', got \['relu'\]"),
    ("axis", True, TypeError, "axis must be an integer, got True"),
    ("axis", 1.0, TypeError, "axis must be an integer, got 1.0"),
    ("single_value", "nan", ValueError, f"single_value {ONE_OF} 'error', 'zero_var', got 'nan'"),
    ("activation", "gelu", ValueError, f"activation {ONE_OF} None, 'relu', got 'gelu'"),
]


@pytest.mark.parametrize(("name", "value", "kind", "says"), OPTIONS)
def test_invalid_option_error_message(name, value, kind, says):
    for face in FACES.values():
        if face is apply and name == "training":
            continue
        b = batch(FORM)
        with refused(kind, "^" + says, parts(b)):
            face(b, **{name: value})


@pytest.mark.parametrize(
    ("number", "kind"),
    [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("1", TypeError), (True, TypeError)],
)
def test_invalid_batch_number_is_rejected_even_if_unused(number, kind):
    for face in FACES.values():
        for more in ({"momentum": None}, {}, {"running_mean": None, "running_var": None}):
            b = batch(FORM)
            with refused(kind, "^batch must be", parts(b)):
                face(b, batch=number, **more)


def test_evaluation_requires_statistics_and_x_requires_two_axes():
    b = batch(FORM)
    with refused(ValueError, "^training=False takes running_mean and running_var", parts(b)):
        forward(b, running_mean=None, running_var=None, training=False)
    for shape in ((), (25,)):
        for call in (F.batch_norm_forward, F.batch_norm_moments):
            with pytest.raises(ValueError, match=r"^x has shape .*, expected at least two axes"):
                call(np.ones(shape, np.float32))
