"""Options of any step, whatever its rule: penalties, decay, clipping, scaling."""

from __future__ import annotations

from typing import Literal, TypedDict


class StepOptionsWithoutDecay(TypedDict, total=False):
    """All of :class:`StepOptions` but ``weight_decay``, for which AdamW has a default of its own."""

    l1: float
    l2: float
    l1_mode: Literal["subgradient", "proximal"]
    decay_order: Literal["before", "after"]
    decay_scale: Literal["lr", "none"]
    maximize: bool
    grad_scale: float
    clip_value: float | None
    clip_norm: float | None
    clip_eps: float
    clip_scope: Literal["global", "tensor"]
    clip_norm_type: float | Literal["2", "1", "max"]
    on_nonfinite: Literal["propagate", "skip", "raise"]


class StepOptions(StepOptionsWithoutDecay, total=False):
    r"""Options that every optimizer and every ``*_step`` function takes.

    They act in this order, whatever the order they are written in:

    1. ``maximize``, ``grad_scale``: :math:`g \leftarrow \pm g / \mathtt{grad\_scale}`; the loss scale that
       the gradients carry.
    2. ``clip_value``: every element limited to :math:`[-c, c]`; ``None`` is off.
    3. ``clip_norm``: :math:`g \leftarrow g \min(1, c / (\lVert g \rVert + \mathtt{clip\_eps}))`. The norm is
       one for all arrays, or one an array (``clip_scope``), the 2-, 1- or maximum norm
       (``clip_norm_type`` 2, 1, ``float("inf")`` or ``"max"``). The default ``clip_eps=1e-6`` is torch's;
       with 0 it is :math:`c / \lVert g \rVert` where that is below 1 (Pascanu et al. 2013,
       arXiv:1211.5063).
    4. ``l1``, ``l2``: :math:`g \leftarrow g + \lambda_1 \operatorname{sign}(\theta) + \lambda_2 \theta`, with
       :math:`\operatorname{sign}(0) = 0`. With ``l1_mode="proximal"`` there is instead a soft threshold
       by :math:`\eta \lambda_1` after everything else, which makes exact zeros.
    5. The rule.
    6. ``weight_decay``: :math:`\theta \leftarrow \theta (1 - \eta \lambda)` (Loshchilov & Hutter 2019,
       arXiv:1711.05101), just before the rule's update or after it (``decay_order``), or without the rate,
       :math:`\theta (1 - \lambda)` (``decay_scale="none"``).

    ``l2`` and ``weight_decay`` are the same thing for plain gradient descent only: with momentum, or
    where each parameter has a rate of its own, an l2 term is carried and scaled along with the gradient.

    Where parameters are given in groups, ``clip_norm``, ``clip_eps``, ``clip_scope``, ``clip_norm_type`` and
    ``on_nonfinite`` belong to the whole optimizer, as they look at all gradients at once. A group may have a
    value of its own of every other option, ``clip_value`` and ``grad_scale`` among them.

    >>> import numpy as np, fastopt
    >>> w, b = np.ones(2), np.ones(2)
    >>> opt = fastopt.SGD([{"params": w, "l2": 0.5}, {"params": b, "clip_value": 1.0}], lr=1.0, clip_norm=9.0)
    >>> opt.step([np.zeros(2), np.full(2, 4.0)])
    >>> w, b
    (array([0.5, 0.5]), array([0., 0.]))

    ``on_nonfinite`` says what a NaN or an infinity in the gradients does: ``"propagate"`` computes on,
    ``"skip"`` leaves everything as it was, ``"raise"`` does so and raises ``FloatingPointError``.
    """

    weight_decay: float


class AdamOptions(StepOptionsWithoutDecay, total=False):
    """What AdamW hands to Adam."""

    eps_mode: Literal["outside", "hat"]
    eps_root: float
    bias_correction: bool
    nesterov: bool
    amsgrad: bool
    amsgrad_max: Literal["raw", "corrected"]
    state_dtype: str | None


DEFAULTS: StepOptions = {
    "l1": 0.0,
    "l2": 0.0,
    "weight_decay": 0.0,
    "l1_mode": "subgradient",
    "decay_order": "before",
    "decay_scale": "lr",
    "maximize": False,
    "grad_scale": 1.0,
    "clip_value": None,
    "clip_norm": None,
    "clip_eps": 1e-6,
    "clip_scope": "global",
    "clip_norm_type": 2,
    "on_nonfinite": "propagate",
}
