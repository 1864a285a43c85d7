"""BatchNorm matches its formula forward and backward: for every form, dtype and option, and for channels with
one value or none."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from ml_dtypes import finfo

import reference_batch_norm as reference
from batch_norm_cases import BY_ID, CASES, FEW, FORMS, Form, batch
from fastopt import functional as F
from tolerance import DTYPES, ULPS, assert_close, errors, wide

# Not covered by the table of tolerances: statistics are sums in double. The error of a mean is a rounding
# of a double or, where elements are float32, a rounding of its second part.
DOUBT = {"float64": 1.0, "float32": 2.0**-24, "float16": 2.0**-24, "bfloat16": 2.0**-24}
# Doubles summed in double, 128 in a row relative to a value that may be far from the mean, have larger
# errors than a step: the largest observed is 35 ULPs.
SUMS = {"float64": 4}
# A rounding of a double, in ULPs of these dtypes.
DOUBLE = {"float64": 1.0, "float32": 2.0**-29, "float16": 2.0**-42, "bfloat16": 2.0**-45}


def channels_second(b, a):
    return np.moveaxis(a, b.form.axis, 1)


def expected(b, case, y):
    """The reference's forward and backward pass of a batch. ReLU is active where the stored ``y`` is > 0."""
    given = b.given(case)
    per_channel = {k: wide(given[k]) for k in ("gamma", "beta") if k in given}
    stats = None if case.training else (wide(b.running_mean), wide(b.running_var))
    doubt = DOUBT[b.x.dtype.name]
    x, residual, dy = (wide(channels_second(b, a)) for a in (b.x, b.residual, b.dy))
    f = reference.forward(
        x,
        **per_channel,
        given=stats,
        eps=case.options.get("eps", 1e-5),
        residual=residual if case.residual else None,
        relu=case.relu,
        doubt=doubt,
    )
    if case.relu:
        dy = np.where(wide(channels_second(b, y)) > 0, dy, 0.0)
    return f, dy, reference.backward(f, dy, doubt=doubt)


def check(b, case):
    """Compare a forward and a backward pass with the reference."""
    y, saved, grads = b.run(case)
    f, dy, want = expected(b, case, y)
    kind = b.x.dtype.name
    beta_terms = want.dbeta_terms * DOUBLE[kind]
    for what, got, value, terms in (
        ("y", channels_second(b, y), f.y, f.y_terms),
        ("dx", channels_second(b, grads.dx), want.dx, want.dx_terms),
        ("dgamma", grads.dgamma, want.dgamma, want.dgamma_terms),
        ("dbeta", grads.dbeta, want.dbeta, beta_terms),
    ):
        if got is None:
            assert what in ("dgamma", "dbeta")
            assert what[1:] not in case.affine
            continue
        assert got.dtype == b.x.dtype
        assert_close(got, value, terms, what=what, steps=SUMS.get(kind, 1))
    if case.residual:
        np.testing.assert_array_equal(wide(channels_second(b, grads.dresidual)), dy)
    np.testing.assert_allclose(saved.mean, f.mean, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(saved.var, f.var, rtol=1e-12)
    np.testing.assert_allclose(saved.invstd, f.invstd, rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_matches_the_reference(form, dtype):
    case = BY_ID["residual-relu"]
    if form.count == 1:
        case = BY_ID["eval-residual-relu"]
    check(batch(form, dtype), case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FEW, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_option_matches_the_reference(case, form, dtype):
    check(batch(form, dtype), case)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("form", FEW, ids=str)
@pytest.mark.parametrize("mean", [1e3, -3e4])
def test_large_mean_keeps_precision(mean, form, dtype):
    """The error in ULPs is no larger than with a small mean. The stored, rounded x is what is normalized."""
    check(batch(form, dtype, mean=mean), BY_ID["affine"])


@pytest.mark.parametrize(("dtype", "small"), [p for p in product(DTYPES, DTYPES) if p[0] != p[1]])
@pytest.mark.parametrize("name", ["residual-relu", "eval-residual-relu"])
def test_per_channel_arrays_of_another_dtype(name, dtype, small):
    """They are read and written in their own dtype: a gradient is rounded once more, to the dtype of gamma."""
    case, form = BY_ID[name], Form((20, 65))
    b, twin = batch(form, dtype, small), batch(form, dtype, small)
    for array in ("gamma", "beta", "running_mean", "running_var"):
        setattr(twin, array, getattr(twin, array).astype(np.float64))
    (y, saved, grads), (y2, saved2, grads2) = b.run(case), twin.run(case)
    assert y.tobytes() == y2.tobytes()
    assert grads.dx.tobytes() == grads2.dx.tobytes()
    for got, want in [
        (grads.dgamma, grads2.dgamma),
        (grads.dbeta, grads2.dbeta),
        (b.running_mean, twin.running_mean),
        (b.running_var, twin.running_var),
    ]:
        assert got.dtype == DTYPES[small]
        # Rounded to float32, then to 16 bits: double rounding where the first result is a tie.
        assert errors(got, want).max() <= 0.5001
    assert saved.mean.tobytes() == saved2.mean.tobytes()


# ---- running statistics ----

CONVENTIONS = list(product([0.1, 0.0, 1.0, 0.9], ["update", "keep"], [True, False]))


@pytest.mark.parametrize(("momentum", "mode", "unbiased"), CONVENTIONS)
@pytest.mark.parametrize("form", [FEW[0], FEW[2]], ids=str)
def test_running_statistics_match_every_convention(form, momentum, mode, unbiased):
    b = batch(form, "float64")
    options = {"momentum": momentum, "momentum_mode": mode, "unbiased": unbiased}
    old = b.running_mean.copy(), b.running_var.copy()
    b.run(BY_ID["affine"], **options)
    mean, var = reference.moments(channels_second(b, b.x))
    new = mean, var * form.count / (form.count - 1) if unbiased else var
    for got, before, batch_value in zip((b.running_mean, b.running_var), old, new, strict=True):
        assert_close(
            got, reference.follow(before, batch_value, momentum, mode), 1.0, steps=SUMS["float64"]
        )


def test_momentum_none_averages_all_batches():
    rng = np.random.default_rng(3)
    running = np.full(3, 7.0), np.full(3, 7.0)  # overwritten by the first batch
    seen = []
    for number in range(1, 6):
        x = rng.standard_normal((50, 3))
        F.batch_norm_forward(x, None, None, *running, momentum=None, batch=number, unbiased=False)
        seen.append(x)
        np.testing.assert_allclose(running[0], np.mean(seen, (0, 1)), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(running[1], np.mean([np.var(s, 0) for s in seen], 0), rtol=1e-12)


def test_running_statistics_in_evaluation_and_with_joined_moments():
    """Evaluation does not update them; part of a batch updates them with the whole batch's statistics."""
    b = batch(Form((20, 3)), "float64")
    before = b.running_mean.tobytes(), b.running_var.tobytes()
    b.run(BY_ID["eval-relu"])
    assert (b.running_mean.tobytes(), b.running_var.tobytes()) == before
    twin = batch(Form((20, 3)), "float64")
    b.run(BY_ID["affine"])
    whole = F.batch_norm_moments(twin.x)
    F.batch_norm_apply(twin.x[:5], whole, None, None, twin.running_mean, twin.running_var)
    assert b.running_mean.tobytes() == twin.running_mean.tobytes()
    assert b.running_var.tobytes() == twin.running_var.tobytes()


# ---- one value, or none ----


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1), (1, 1)])
@pytest.mark.parametrize("unbiased", [True, False])
def test_one_value_per_channel_raises_unless_zero_var(shape, unbiased):
    x, c = np.full(shape, 5.0, np.float32), shape[1]
    running = np.zeros(c, np.float32), np.ones(c, np.float32)
    with pytest.raises(ValueError, match=r"^x has shape .*, expected more than one value per channel"):
        F.batch_norm_forward(x, None, None, *running)
    assert (running[0] == 0).all()
    assert (running[1] == 1).all()
    beta = np.arange(c, dtype=np.float32)
    y, saved = F.batch_norm_forward(
        x, None, beta, *running, single_value="zero_var", unbiased=unbiased, momentum=0.5
    )
    np.testing.assert_array_equal(y.reshape(c), beta)
    np.testing.assert_array_equal(running[0], 2.5)
    np.testing.assert_array_equal(running[1], 0.5)  # finite
    assert not F.batch_norm_backward(np.ones_like(x), saved).dx.any()


def test_single_value_is_allowed_in_evaluation_and_partial_batches():
    x = np.array([[3.0, 5.0]])
    y, _ = F.batch_norm_forward(x, None, None, np.ones(2), np.full(2, 4.0), training=False, eps=0.0)
    np.testing.assert_array_equal(y, [[1.0, 2.0]])
    y, _ = F.batch_norm_apply(x, F.BatchMoments(5.0, np.ones(2), np.full(2, 20.0)), eps=0.0)
    np.testing.assert_array_equal(y, [[1.0, 2.0]])


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 4), (2, 3, 0), (0, 0), (5, 0), (2, 0, 4)])
@pytest.mark.parametrize("name", ["residual-relu", "eval-residual-relu"])
def test_an_empty_batch_changes_nothing(shape, name):
    b = batch(Form(shape))
    before = b.running_mean.tobytes(), b.running_var.tobytes()
    y, saved, grads = b.run(BY_ID[name])
    assert y.shape == grads.dx.shape == grads.dresidual.shape == shape
    assert (b.running_mean.tobytes(), b.running_var.tobytes()) == before
    assert not grads.dgamma.any()
    assert not grads.dbeta.any()
    for array in (saved.mean, saved.var, saved.invstd):
        assert np.isfinite(array).all()


# ---- ReLU ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", [Form((40, 70)), Form((3, 2, 700)), Form((90, 3, 13))], ids=str)
@pytest.mark.parametrize("residual", [False, True])
def test_gradient_passes_exactly_where_the_stored_output_is_above_zero(dtype, form, residual, isa):
    """This includes positive values that a 16-bit type rounds to zero, and NaN."""
    b = batch(form, dtype)
    case = BY_ID["eval-residual-relu" if residual else "eval-relu"]
    b.running_mean[:], b.running_var[:], b.beta[:] = 0, 1, 0
    b.residual[...] = 0
    tiny = float(finfo(b.x.dtype).smallest_subnormal)
    values = np.array([0.25, 0.5, 0.51, 0.75, 1.0, 1.5, 3.0, 0.0, -0.0, -1.0, -0.4, np.nan, np.inf])
    # In 16 bits gamma scales y to values that are stored as zero, or that are just large enough not to be.
    b.gamma = np.where(np.arange(form.channels) % 2, 0.25, 1.0)
    flat = np.resize(np.concatenate([values[:11] * tiny * 4, values[7:], values]), b.x.size)
    b.x[...] = flat.reshape(form.shape).astype(b.x.dtype)
    y, _, grads = b.run(case, eps=0.0)
    on = wide(y) > 0
    assert on.any()
    assert not on.all()
    dy = wide(b.dy)
    scale = b.gamma.reshape((1, -1) + (1,) * (b.x.ndim - 2))
    np.testing.assert_array_equal(wide(grads.dx), wide((np.where(on, dy, 0) * scale).astype(b.x.dtype)))
    assert np.isnan(wide(y)).any()
    if residual:
        np.testing.assert_array_equal(wide(grads.dresidual), np.where(on, dy, 0))


@pytest.mark.parametrize("activation", [None, "relu"])
def test_a_nan_stays_in_its_channel(activation):
    b = batch(Form((40, 70)))
    clean, _ = F.batch_norm_forward(b.x, activation=activation)
    b.x[3, 5] = np.nan
    y, saved = F.batch_norm_forward(b.x, activation=activation)
    assert np.isnan(y[:, 5]).all()
    np.testing.assert_array_equal(np.delete(y, 5, 1), np.delete(clean, 5, 1))
    assert np.isnan(F.batch_norm_backward(b.dy, saved).dx).any(0).nonzero()[0].tolist() in ([5], [])


def test_the_bound_is_tight():
    """The bound is near the observed error: a bound that is never approached would detect nothing."""
    b = batch(FEW[0])
    y, _, _ = b.run(BY_ID["affine"])
    f, _, _ = expected(b, BY_ID["affine"], y)
    assert errors(y, f.y, f.y_terms).max() > ULPS["float32"] / 10
