"""Reference steps in float64, written for readability from the papers and the table of conventions. They are
not fast, and they are independent of fastopt's implementation.

A rule takes the parameter ``w``, the gradient ``g``, its state ``s`` (a dict, updated in place), the step
count ``t`` (1 for the first) and its hyper-parameters with fastopt's names, and returns the new parameter.
"""

from __future__ import annotations

import numpy as np


def sgd(w, g, s, t, *, lr):
    """Robbins & Monro 1951."""
    return w - lr * g


def polyak(w, g, s, t, *, lr, momentum=0.9, dampening=0.0, first_step="grad", lr_in_velocity=True):
    """Momentum. Polyak 1964."""
    if not (t == 1 and first_step == "grad"):
        g = (1 - dampening) * g
    if lr_in_velocity:
        s["velocity"] = momentum * s["velocity"] + lr * g
        return w - s["velocity"]
    s["velocity"] = momentum * s["velocity"] + g
    return w - lr * s["velocity"]


def nesterov(w, g, s, t, *, lr, momentum=0.9, form="applied", lr_in_velocity=True, **rest):
    """Nesterov 1983; ``"applied"`` as in Sutskever et al. 2013, section 2."""
    carried = polyak(w, g, s, t, lr=lr, momentum=momentum, lr_in_velocity=lr_in_velocity, **rest)
    if form == "lookahead":  # g was computed at lookahead(w, v); the step is that of momentum
        return carried
    if lr_in_velocity:
        return w - (momentum * s["velocity"] + lr * g)
    return w - lr * (g + momentum * s["velocity"])


def lookahead(w, v, *, lr, momentum=0.9, lr_in_velocity=True):
    """The parameter after a step of momentum with a gradient of 0."""
    return w - momentum * v if lr_in_velocity else w - lr * momentum * v


def adagrad(w, g, s, t, *, lr, eps=1e-8, eps_mode="outside", lr_decay=0.0):
    """Duchi, Hazan & Singer 2011."""
    s["sum_sq"] = s["sum_sq"] + g**2
    rate = lr / (1 + (t - 1) * lr_decay)
    return w - rate * g / denominator(s["sum_sq"], eps, eps_mode)


def rmsprop(
    w, g, s, t, *, lr, rho=0.9, eps=1e-8, eps_mode="outside", momentum=0.0, lr_in_velocity=False
):
    """Tieleman & Hinton 2012; centered and with momentum: Graves 2013, equations 38 to 45."""
    s["mean_sq"] = rho * s["mean_sq"] + (1 - rho) * g**2
    variance = s["mean_sq"]
    if "mean_grad" in s:
        s["mean_grad"] = rho * s["mean_grad"] + (1 - rho) * g
        variance = np.maximum(s["mean_sq"] - s["mean_grad"] ** 2, 0)
    scaled = g / denominator(variance, eps, eps_mode)
    if "velocity" not in s:
        return w - lr * scaled
    if lr_in_velocity:
        s["velocity"] = momentum * s["velocity"] + lr * scaled
        return w - s["velocity"]
    s["velocity"] = momentum * s["velocity"] + scaled
    return w - lr * s["velocity"]


def denominator(x, eps, eps_mode):
    return np.sqrt(x + eps) if eps_mode == "inside" else np.sqrt(x) + eps


def adam(
    w,
    g,
    s,
    t,
    *,
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    eps_mode="outside",
    eps_root=0.0,
    bias_correction=True,
    nesterov=False,
    amsgrad_max="raw",
):
    """Kingma & Ba 2015, Algorithm 1, and the end of section 2 (``"hat"``); Dozat 2016 (Nesterov);
    Reddi, Kale & Kumar 2018 (AMSGrad)."""
    s["m"] = beta1 * s["m"] + (1 - beta1) * g
    s["v"] = beta2 * s["v"] + (1 - beta2) * g**2
    c1, c1_next, c2 = 1 - beta1**t, 1 - beta1 ** (t + 1), 1 - beta2**t
    if not bias_correction:
        c1 = c1_next = c2 = 1.0
    m_hat = beta1 * s["m"] / c1_next + (1 - beta1) * g / c1 if nesterov else s["m"] / c1
    if eps_mode == "hat":  # v stays uncorrected; its correction is in the learning rate
        lr, c2 = lr * np.sqrt(c2), 1.0
    v_hat = s["v"] / c2
    if "v_max" in s and amsgrad_max == "corrected":
        v_hat = s["v_max"] = np.maximum(s["v_max"], v_hat)
    elif "v_max" in s:
        s["v_max"] = np.maximum(s["v_max"], s["v"])
        v_hat = s["v_max"] / c2
    return w - lr * m_hat / (np.sqrt(v_hat + eps_root) + eps)


REFERENCES = {
    "sgd": sgd,
    "momentum": polyak,
    "nesterov": nesterov,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "rmsprop_momentum": rmsprop,
    "rmsprop_centered": rmsprop,
    "rmsprop_centered_momentum": rmsprop,
    "adam": adam,
    "adam_amsgrad": adam,
}


# ---- operations around a rule, in this order ----


def norm(arrays, kind=2):
    """The norm of a list of arrays, taken as one vector."""
    values = np.abs(np.concatenate([np.ravel(a) for a in arrays] or [np.zeros(0)]))
    if kind in ("max", float("inf")):
        return values.max(initial=0.0)
    return values.sum() if kind == 1 else np.sqrt((values**2).sum())


def clip_coefficient(size, clip_norm, clip_eps):
    """Pascanu, Mikolov & Bengio 2013."""
    return min(1.0, clip_norm / (size + clip_eps)) if size + clip_eps > 0 else 1.0


def shape_gradients(
    gs,
    *,
    maximize=False,
    grad_scale=1.0,
    clip_value=None,
    clip_norm=None,
    clip_eps=1e-6,
    clip_scope="global",
    clip_norm_type=2,
):
    """Unscale, clip by value, clip by norm."""
    gs = [(-g if maximize else g) / grad_scale for g in gs]
    if clip_value is not None:
        gs = [np.clip(g, -clip_value, clip_value) for g in gs]
    if clip_norm is not None:
        together = [gs] * len(gs) if clip_scope == "global" else [[g] for g in gs]
        sizes = [norm(list_, clip_norm_type) for list_ in together]
        gs = [
            g * clip_coefficient(size, clip_norm, clip_eps) for g, size in zip(gs, sizes, strict=True)
        ]
    return gs


def regularized(
    rule,
    w,
    g,
    s,
    t,
    *,
    lr,
    l1=0.0,
    l2=0.0,
    l1_mode="subgradient",
    weight_decay=0.0,
    decay_order="before",
    decay_scale="lr",
    **hyper,
):
    """L1 and L2, then the rule, with decoupled decay (Loshchilov & Hutter 2019) before or after it."""
    if l1_mode == "subgradient":
        g = g + l1 * np.sign(w)
    g = g + l2 * w
    kept = 1 - weight_decay * (lr if decay_scale == "lr" else 1)
    if decay_order == "before":
        w = rule(w * kept, g, s, t, lr=lr, **hyper)
    else:
        w = rule(w, g, s, t, lr=lr, **hyper) * kept
    if l1_mode == "proximal":
        w = np.sign(w) * np.maximum(np.abs(w) - lr * l1, 0)
    return w


SHAPING = {
    "maximize",
    "grad_scale",
    "clip_value",
    "clip_norm",
    "clip_eps",
    "clip_scope",
    "clip_norm_type",
}


def step(rule, ws, gs, states, t, **hyper):
    """One step of the named rule on a list of parameters; ``states`` has a dict for each of them."""
    gs = shape_gradients(gs, **{k: v for k, v in hyper.items() if k in SHAPING})
    rest = {k: v for k, v in hyper.items() if k not in SHAPING}
    return [
        regularized(REFERENCES[rule], w, g, s, t, **rest)
        for w, g, s in zip(ws, gs, states, strict=True)
    ]
