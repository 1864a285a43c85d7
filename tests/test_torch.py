"""With torch's conventions, fastopt matches torch over fifty steps of every optimizer that torch also has."""

from __future__ import annotations

import numpy as np
import pytest

import fastopt
from fastopt import functional as F
from tolerance import assert_close

torch = pytest.importorskip("torch", reason="torch is not installed: nothing to compare with")

STEPS = 50
LENGTHS = (1, 300, 1025)

# torch's optimizer and its options, then ours and its options.
PAIRS = {
    "sgd": ("SGD", {}, fastopt.SGD, {}),
    "sgd-maximize": ("SGD", {"maximize": True}, fastopt.SGD, {"maximize": True}),
    "sgd-l2": ("SGD", {"weight_decay": 0.1}, fastopt.SGD, {"l2": 0.1}),
    "momentum": (
        "SGD",
        {"momentum": 0.9},
        fastopt.Momentum,
        {"momentum": 0.9, "lr_in_velocity": False},
    ),
    "momentum-dampened-l2": (
        "SGD",
        {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1},
        fastopt.Momentum,
        {"momentum": 0.9, "dampening": 0.5, "l2": 0.1, "lr_in_velocity": False},
    ),
    "nesterov": (
        "SGD",
        {"momentum": 0.9, "nesterov": True},
        fastopt.Nesterov,
        {"momentum": 0.9, "form": "applied", "lr_in_velocity": False},
    ),
    "adagrad": ("Adagrad", {"eps": 1e-10}, fastopt.AdaGrad, {"eps": 1e-10}),
    "adagrad-decayed": (
        "Adagrad",
        {"lr_decay": 0.1, "initial_accumulator_value": 0.5, "weight_decay": 0.1, "eps": 1e-10},
        fastopt.AdaGrad,
        {"lr_decay": 0.1, "initial_accumulator": 0.5, "l2": 0.1, "eps": 1e-10},
    ),
    "rmsprop": ("RMSprop", {"alpha": 0.9}, fastopt.RMSprop, {"rho": 0.9}),
    "rmsprop-centered": (
        "RMSprop",
        {"alpha": 0.9, "centered": True, "eps": 1e-3},
        fastopt.RMSprop,
        {"rho": 0.9, "centered": True, "eps": 1e-3},
    ),
    "rmsprop-momentum": (
        "RMSprop",
        {"alpha": 0.9, "momentum": 0.5},
        fastopt.RMSprop,
        {"rho": 0.9, "momentum": 0.5},
    ),
    "rmsprop-centered-momentum-l2": (
        "RMSprop",
        {"alpha": 0.9, "centered": True, "momentum": 0.5, "weight_decay": 0.1, "eps": 1e-3},
        fastopt.RMSprop,
        {"rho": 0.9, "centered": True, "momentum": 0.5, "l2": 0.1, "eps": 1e-3},
    ),
    "adam": ("Adam", {}, fastopt.Adam, {}),
    "adam-l2": ("Adam", {"weight_decay": 0.1}, fastopt.Adam, {"l2": 0.1}),
    "adam-amsgrad-maximize": (
        "Adam",
        {"amsgrad": True, "maximize": True, "betas": (0.8, 0.5)},
        fastopt.Adam,
        {"amsgrad": True, "maximize": True, "betas": (0.8, 0.5)},
    ),
    "adamw": ("AdamW", {"weight_decay": 0.1}, fastopt.AdamW, {"weight_decay": 0.1}),
    "adamw-amsgrad": (
        "AdamW",
        {"amsgrad": True, "betas": (0.8, 0.5)},
        fastopt.AdamW,
        {"amsgrad": True, "betas": (0.8, 0.5)},
    ),
}
# Norm types: of clip_norm here, and of clip_grad_norm_ before torch's step.
NORMS = {"2": 2.0, "1": 1.0, "max": float("inf")}


def train_both(dtype, theirs, their_options, cls, options, clip=None):
    """Return the initial parameters, torch's and ours after the same gradients. Gradients have the sign of the
    parameters, so that an l2 term does not cancel them."""
    rng = np.random.default_rng(23)
    start = [rng.uniform(2.0, 4.0, n).astype(dtype) for n in LENGTHS]
    ours = [p.copy() for p in start]
    tensors = [torch.tensor(p, requires_grad=True) for p in start]
    their_opt = getattr(torch.optim, theirs)(tensors, lr=0.01, **their_options)
    our_opt = cls(ours, lr=0.01, **options)
    for _ in range(STEPS):
        grads = [rng.uniform(0.25, 2.0, n).astype(dtype) for n in LENGTHS]
        for tensor, g in zip(tensors, grads, strict=True):
            tensor.grad = torch.tensor(g)
        if clip:
            torch.nn.utils.clip_grad_norm_(tensors, *clip)
        their_opt.step()
        our_opt.step(grads)
    return start, [t.detach().numpy() for t in tensors], ours


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("pair", PAIRS)
def test_steps_match_torch(pair, dtype):
    start, theirs, ours = train_both(dtype, *PAIRS[pair])
    for a, b, c in zip(ours, theirs, start, strict=True):
        assert_close(a, b.astype(np.float64), c, what=pair, steps=STEPS)
        assert np.abs(a - c).min() > 0.01  # the parameters have moved


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_clipped_step_matches_torch(kind, dtype, factor):
    """Limits below and above the norm."""
    typical = {"2": 45.0, "1": 1500.0, "max": 2.0}[kind]
    clip = (factor * typical, NORMS[kind])
    options = {"clip_norm": clip[0], "clip_norm_type": kind}
    start, theirs, ours = train_both(dtype, "SGD", {}, fastopt.SGD, options, clip)
    for a, b, c in zip(ours, theirs, start, strict=True):
        assert_close(a, b.astype(np.float64), c, what=kind, steps=STEPS)


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_clip_grad_norm_matches_torch(kind, dtype):
    rng = np.random.default_rng(29)
    ours = [rng.standard_normal(n).astype(dtype) for n in LENGTHS]
    tensors = [torch.zeros_like(torch.from_numpy(g)) for g in ours]
    for tensor, g in zip(tensors, ours, strict=True):
        tensor.grad = torch.tensor(g)
    size = torch.nn.utils.clip_grad_norm_(tensors, 1.5, NORMS[kind])
    # torch sums in the gradients' dtype and in another order: one rounding for each level of its tree.
    assert F.clip_grad_norm(ours, 1.5, norm_type=kind) == pytest.approx(
        float(size), rel=16 * float(np.finfo(dtype).eps)
    )
    for a, tensor in zip(ours, tensors, strict=True):
        assert_close(a, tensor.grad.numpy().astype(np.float64), what=kind, steps=3)
