"""BatchNorm's gradients match central differences for every option, on a whole batch and in parts, and match
torch. Running statistics match torch, too."""

from __future__ import annotations

import numpy as np
import pytest

from batch_norm_cases import CASES, FEW, Case, Form, batch
from fastopt import functional as F

SMALL = [Form((5, 3)), Form((2, 3, 4)), Form((2, 2, 3), axis=-1), Form((3, 2, 2, 2), axis=0)]
STEP = 1e-5
# The error of the difference quotient: the third derivative times STEP**2, and rounding errors divided by STEP.
NEAR = {"rtol": 1e-6, "atol": 1e-7}


def differences(function, array: np.ndarray) -> np.ndarray:
    """Central differences of a scalar function with respect to each element of ``array``."""
    slopes = np.empty_like(array)
    for place in np.ndindex(array.shape):
        kept = array[place]
        array[place] = kept + STEP
        above = function()
        array[place] = kept - STEP
        slopes[place] = (above - function()) / (2 * STEP)
        array[place] = kept
    return slopes


def check_away_from_relu_kink(b, case: Case):
    """Check that no output of the batch is so near 0 that a step would cross it."""
    if case.relu:
        options = b.given(case) | {"activation": None, "running_mean": None, "running_var": None}
        if not case.training:
            options |= {"running_mean": b.running_mean, "running_var": b.running_var}
        y, _ = F.batch_norm_forward(b.x, **options)
        assert np.abs(y).min() > 100 * STEP
        assert (y < 0).any()
    return b


@pytest.mark.parametrize("form", SMALL, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_match_central_differences(case, form):
    b = check_away_from_relu_kink(batch(form, "float64"), case)
    given = b.given(case)
    if case.training:  # training changes running statistics, and loss() must be a pure function
        given = {k: v for k, v in given.items() if not k.startswith("running")}

    def loss() -> float:
        return float((F.batch_norm_forward(b.x, **given)[0] * b.dy).sum())

    _, saved = F.batch_norm_forward(b.x, **given)
    grads = F.batch_norm_backward(b.dy, saved)
    assert grads._fields == ("dx", "dgamma", "dbeta", *["dresidual"] * case.residual)
    for name in ("x", "gamma", "beta", "residual"):
        slope = differences(loss, getattr(b, name))
        if name in given or name == "x":
            np.testing.assert_allclose(getattr(grads, f"d{name}"), slope, **NEAR, err_msg=name)
        else:
            assert not slope.any()
            assert getattr(grads, f"d{name}", None) is None


@pytest.mark.parametrize("relu", [False, True])
def test_gradients_through_joined_statistics(relu):
    """Statistics and sums are those of the whole batch: x of one part affects the output of the other."""
    b = batch(Form((7, 3)), "float64")
    parts = [slice(0, 2), slice(2, 7)]
    options = {"gamma": b.gamma, "beta": b.beta, "activation": "relu" if relu else None}

    def forward():
        whole = F.batch_norm_join([F.batch_norm_moments(b.x[p]) for p in parts])
        return [F.batch_norm_apply(b.x[p], whole, **options) for p in parts]

    def loss() -> float:
        return sum(float((y * b.dy[p]).sum()) for p, (y, _) in zip(parts, forward(), strict=True))

    passed = forward()
    sums = [F.batch_norm_backward_reduce(b.dy[p], s) for p, (_, s) in zip(parts, passed, strict=True)]
    total = F.BatchNormSums(*(sum(numbers) for numbers in zip(*sums, strict=True)))
    grads = [
        F.batch_norm_backward_apply(b.dy[p], s, total) for p, (_, s) in zip(parts, passed, strict=True)
    ]
    dx = np.concatenate([g.dx for g in grads])
    np.testing.assert_allclose(dx, differences(loss, b.x), **NEAR)
    np.testing.assert_allclose(grads[0].dgamma, differences(loss, b.gamma), **NEAR)
    np.testing.assert_allclose(grads[1].dbeta, differences(loss, b.beta), **NEAR)


def test_gradient_is_orthogonal_to_shifts_and_scalings_of_x():
    """In training, the gradient of each channel sums to 0 and is orthogonal to x."""
    for form in FEW:
        b = batch(form, "float64")
        _, saved = F.batch_norm_forward(b.x, b.gamma)
        dx = F.batch_norm_backward(b.dy, saved).dx
        axes = tuple(d for d in range(b.x.ndim) if d != 1)
        assert np.abs(dx.sum(axes)).max() < 1e-10 * np.abs(dx).sum(axes).min()
        with_eps = np.abs((dx * b.x).sum(axes))
        assert with_eps.max() < 1e-4 * np.abs(dx * b.x).sum(axes).min()  # not exactly 0, because of eps


# ---- torch ----


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", [*FEW, Form((4, 5, 6, 7), order=(0, 2, 3, 1))], ids=str)
@pytest.mark.parametrize("case", [c for c in CASES if c.affine != "gamma"], ids=str)
def test_forward_and_backward_match_torch(case, form, dtype, torch):
    b = batch(form, dtype)
    given = b.given(case)
    names = [n for n in ("gamma", "beta", "residual") if n in given]
    theirs = {n: torch.from_numpy(given[n].copy()).requires_grad_() for n in names}
    x = torch.from_numpy(b.x.copy()).requires_grad_()
    running = [
        torch.from_numpy(v.copy()) if case.running else None for v in (b.running_mean, b.running_var)
    ]
    y = torch.nn.functional.batch_norm(
        x,
        *running,
        theirs.get("gamma"),
        theirs.get("beta"),
        training=case.training,
        momentum=0.1,
        eps=case.options.get("eps", 1e-5),
    )
    y = y + theirs.get("residual", 0.0)
    y = torch.relu(y) if case.relu else y
    y.backward(torch.from_numpy(b.dy.copy()))
    ours, _, grads = b.run(case)
    # torch sums thousands of values in the array's dtype, in a different order.
    near = {"rtol": 1e-4, "atol": 2e-5} if dtype == "float32" else {"rtol": 1e-11, "atol": 1e-12}
    np.testing.assert_allclose(ours, y.detach().numpy(), **near)
    np.testing.assert_allclose(grads.dx, x.grad.numpy(), **near)
    for name in names:
        size = 1.0 if name == "residual" else form.count**0.5
        got, want = getattr(grads, f"d{name}"), theirs[name].grad.numpy()
        np.testing.assert_allclose(got, want, near["rtol"], near["atol"] * size, err_msg=name)
    for mine, other in zip((b.running_mean, b.running_var), running, strict=True):
        if other is not None:
            np.testing.assert_allclose(mine, other.numpy(), **near)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_are_those_of_torchs_layer(momentum, torch):
    layer = torch.nn.BatchNorm1d(65, momentum=momentum, dtype=torch.float64)
    running = np.zeros(65), np.ones(65)
    rng = np.random.default_rng(31)
    for number in range(1, 4):
        x = rng.standard_normal((40, 65))
        layer(torch.from_numpy(x))
        F.batch_norm_forward(x, None, None, *running, momentum=momentum, batch=number)
        np.testing.assert_allclose(running[0], layer.running_mean.numpy(), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(running[1], layer.running_var.numpy(), rtol=1e-12)
