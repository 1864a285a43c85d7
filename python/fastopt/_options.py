"""Options shared by all optimizers: penalties, weight decay, gradient clipping and scaling."""

from __future__ import annotations

from typing import Literal, TypedDict


class StepOptionsWithoutDecay(TypedDict, total=False):
    """All of :class:`StepOptions` except ``weight_decay``, which has another default in AdamW."""

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

    They are applied in this order:

    1. ``maximize``, ``grad_scale``: :math:`g \leftarrow \pm g / \mathtt{grad\_scale}`, where
       ``grad_scale`` is the factor by which the loss was scaled.
    2. ``clip_value``: clip every element to :math:`[-c, c]`; ``None`` disables it.
    3. ``clip_norm``: :math:`g \leftarrow g \min(1, c / (\lVert g \rVert + \mathtt{clip\_eps}))`. The
       norm is of all arrays together or of each array (``clip_scope``), and it is the 2-, 1- or maximum norm
       (``clip_norm_type`` 2, 1, ``float("inf")`` or ``"max"``). The default ``clip_eps=1e-6`` is torch's.
       With 0 the factor is :math:`c / \lVert g \rVert` if that is below 1 (Pascanu et al. 2013,
       arXiv:1211.5063).
    4. ``l1``, ``l2``: :math:`g \leftarrow g + \lambda_1 \operatorname{sign}(\theta) + \lambda_2 \theta`, with
       :math:`\operatorname{sign}(0) = 0`. With ``l1_mode="proximal"`` a soft threshold by
       :math:`\eta \lambda_1` is applied after all else instead, which produces exact zeros.
    5. The rule.
    6. ``weight_decay``: :math:`\theta \leftarrow \theta (1 - \eta \lambda)` (Loshchilov & Hutter 2019,
       arXiv:1711.05101), just before or after the rule's update (``decay_order``), or without :math:`\eta`,
       :math:`\theta (1 - \lambda)` (``decay_scale="none"``).

    ``l2`` and ``weight_decay`` are equivalent only for plain SGD. With momentum or per-parameter rates, the
    L2 term is accumulated and scaled together with the gradient.

    With parameters in groups, ``clip_norm``, ``clip_eps``, ``clip_scope``, ``clip_norm_type`` and
    ``on_nonfinite`` are set for the whole optimizer, as they apply to all gradients together. A group can
    override every other option, including ``clip_value`` and ``grad_scale``.

    >>> import numpy as np, fastopt
    >>> w, b = np.ones(2), np.ones(2)
    >>> opt = fastopt.SGD([{"params": w, "l2": 0.5}, {"params": b, "clip_value": 1.0}], lr=1.0, clip_norm=9.0)
    >>> opt.step([np.zeros(2), np.full(2, 4.0)])
    >>> w, b
    (array([0.5, 0.5]), array([0., 0.]))

    ``on_nonfinite`` is the reaction to a NaN or an infinity in the gradients: ``"propagate"`` computes with
    it, ``"skip"`` leaves everything unchanged, ``"raise"`` does so and raises ``FloatingPointError``.
    """

    weight_decay: float


class AdamOptions(StepOptionsWithoutDecay, total=False):
    """The options that AdamW passes on to Adam."""

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
