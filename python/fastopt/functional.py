"""Stateless functions: steps of the optimizers, norms and clipping, BatchNorm, dropout.

Every ``*_step`` function updates one array or a list of arrays in place, takes the options of
:class:`fastopt.StepOptions` by keyword, and returns whether it stepped: ``False`` if
``on_nonfinite="skip"`` skipped the step. On a CUDA device it always returns ``True``, as the host does not wait
for the result. ``ValueError`` and ``TypeError`` are raised before anything is written. For arrays and formulas
see the classes in :mod:`fastopt.optim`.
"""

from __future__ import annotations

from typing import Literal

from fastopt._array_utils import Arrays, deepcopy_arrays, full_like, is_array
from fastopt._batch_norm import (
    BatchMoments,
    BatchNormGrads,
    BatchNormResidualGrads,
    BatchNormSums,
    batch_norm_apply,
    batch_norm_backward,
    batch_norm_backward_apply,
    batch_norm_backward_reduce,
    batch_norm_forward,
    batch_norm_join,
    batch_norm_moments,
)
from fastopt._dropout import (
    DropoutSaved,
    dropout_backward,
    dropout_forward,
    dropout_mask,
    philox4x32,
)
from fastopt._functional_step import (
    make_step,
    nesterov_rule,
    rmsprop_rule,
    velocity_hyper,
    velocity_step,
)
from fastopt._norms import clip_grad_norm, clip_grad_value, global_norm
from fastopt._options import StepOptions
from fastopt._typing import Unpack

__all__ = [
    "BatchMoments",
    "BatchNormGrads",
    "BatchNormResidualGrads",
    "BatchNormSums",
    "DropoutSaved",
    "adagrad_step",
    "adam_step",
    "batch_norm_apply",
    "batch_norm_backward",
    "batch_norm_backward_apply",
    "batch_norm_backward_reduce",
    "batch_norm_forward",
    "batch_norm_join",
    "batch_norm_moments",
    "clip_grad_norm",
    "clip_grad_value",
    "dropout_backward",
    "dropout_forward",
    "dropout_mask",
    "global_norm",
    "momentum_step",
    "nesterov_lookahead",
    "nesterov_step",
    "philox4x32",
    "rmsprop_step",
    "sgd_step",
]


def sgd_step(param: Arrays, grad: Arrays, *, lr: float, **options: Unpack[StepOptions]) -> bool:
    r"""One step of gradient descent, :math:`\theta \leftarrow \theta - \eta g`; writes ``param``.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> w = np.array([1.0, -2.0])
    >>> F.sgd_step(w, np.array([1.0, 1.0]), lr=0.5)
    True
    >>> w
    array([ 0.5, -2.5])

    See :class:`fastopt.SGD`.
    """
    return make_step(sgd_step, "sgd", param, grad, [], 1, {"lr": lr}, options)


def momentum_step(
    param: Arrays,
    grad: Arrays,
    velocity: Arrays,
    *,
    lr: float,
    momentum: float = 0.9,
    dampening: float = 0.0,
    first_step: Literal["grad", "zero"] = "grad",
    lr_in_velocity: bool = True,
    step: int | None = None,
    **options: Unpack[StepOptions],
) -> bool:
    r"""One step with momentum, :math:`v \leftarrow \gamma v + \eta g`, :math:`\theta \leftarrow \theta - v`;
    writes ``param`` and ``velocity``. ``step`` (from 1) is required only with dampening.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> w, v = np.array([1.0]), np.array([0.5])
    >>> F.momentum_step(w, np.array([1.0]), v, lr=0.25, momentum=0.5)
    True
    >>> w, v
    (array([0.5]), array([0.5]))

    See :class:`fastopt.Momentum`.
    """
    t = velocity_step("momentum_step", step, dampening, first_step)
    hyper = velocity_hyper(lr, momentum, dampening, first_step, lr_in_velocity)
    return make_step(momentum_step, "momentum", param, grad, [velocity], t, hyper, options)


def nesterov_step(
    param: Arrays,
    grad: Arrays,
    velocity: Arrays,
    *,
    lr: float,
    momentum: float = 0.9,
    form: Literal["lookahead", "applied"] = "lookahead",
    dampening: float = 0.0,
    first_step: Literal["grad", "zero"] = "grad",
    lr_in_velocity: bool = True,
    step: int | None = None,
    **options: Unpack[StepOptions],
) -> bool:
    r"""One step with Nesterov's momentum; writes ``param`` and ``velocity``. With ``form="lookahead"`` the
    gradient must be taken at the point of :func:`nesterov_lookahead`; with ``"applied"``, at ``param``.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> w, v = np.array([1.0]), np.array([0.5])
    >>> F.nesterov_step(w, np.array([1.0]), v, lr=0.25, momentum=0.5, form="applied")
    True
    >>> w, v
    (array([0.5]), array([0.5]))

    See :class:`fastopt.Nesterov`.
    """
    t = velocity_step("nesterov_step", step, dampening, first_step)
    hyper = velocity_hyper(lr, momentum, dampening, first_step, lr_in_velocity)
    return make_step(nesterov_step, nesterov_rule(form), param, grad, [velocity], t, hyper, options)


def nesterov_lookahead(
    param: Arrays,
    velocity: Arrays,
    *,
    lr: float | None = None,
    momentum: float = 0.9,
    lr_in_velocity: bool = True,
) -> Arrays:
    r"""The point :math:`\theta - \gamma v` (with ``lr_in_velocity=False`` :math:`\theta - \eta \gamma v`) where
    ``form="lookahead"`` takes its gradient: a new array, or a list of them (NumPy arrays for a ``memoryview``).
    The arguments are only read. ``lr`` is required only with ``lr_in_velocity=False``.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> F.nesterov_lookahead(np.array([1.0]), np.array([0.5]), momentum=0.5)
    array([0.75])
    """
    if lr is None:
        if lr_in_velocity is False:
            raise ValueError("nesterov_lookahead with lr_in_velocity=False requires lr=")
        lr = 0.0  # not used then
    single = not isinstance(param, (list, tuple))
    for i, p in enumerate([param] if single else param):
        if not is_array(p):
            at = "param" if single else f"params[{i}]"
            raise TypeError(f"{at} has type {type(p).__name__}, expected an array")
    # A step with zero gradients moves the parameters by momentum alone. The kernel computes it, so that every
    # dtype, layout and library is rounded as in a step.
    points, velocity_copy = deepcopy_arrays(param), deepcopy_arrays(velocity)
    zero_grads = full_like(param, 0.0) if single else [full_like(p, 0.0) for p in param]
    momentum_step(
        points, zero_grads, velocity_copy, lr=lr, momentum=momentum, lr_in_velocity=lr_in_velocity
    )
    return points


def adagrad_step(
    param: Arrays,
    grad: Arrays,
    sum_sq: Arrays,
    *,
    lr: float,
    eps: float = 1e-8,
    eps_mode: Literal["outside", "inside"] = "outside",
    lr_decay: float = 0.0,
    step: int | None = None,
    **options: Unpack[StepOptions],
) -> bool:
    r"""One step of AdaGrad, :math:`G \leftarrow G + g^2`,
    :math:`\theta \leftarrow \theta - \eta g / (\sqrt G + \epsilon)`; writes ``param`` and ``sum_sq``. ``step``
    (from 1) is required only with ``lr_decay``.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> w, G = np.array([1.0]), np.array([9.0])
    >>> F.adagrad_step(w, np.array([4.0]), G, lr=0.5, eps=0.0)
    True
    >>> w, G
    (array([0.6]), array([25.]))

    See :class:`fastopt.AdaGrad`.
    """
    if step is None and lr_decay != 0.0:
        raise ValueError("adagrad_step with lr_decay requires step=")
    hyper = {"lr": lr, "eps": eps, "eps_mode": eps_mode, "lr_decay": lr_decay}
    return make_step(
        adagrad_step, "adagrad", param, grad, [sum_sq], 1 if step is None else step, hyper, options
    )


def rmsprop_step(
    param: Arrays,
    grad: Arrays,
    mean_sq: Arrays,
    *,
    lr: float,
    rho: float = 0.9,
    eps: float = 1e-8,
    eps_mode: Literal["outside", "inside"] = "outside",
    mean_grad: Arrays | None = None,
    velocity: Arrays | None = None,
    momentum: float = 0.0,
    lr_in_velocity: bool = False,
    **options: Unpack[StepOptions],
) -> bool:
    r"""One step of RMSprop, :math:`E \leftarrow \rho E + (1 - \rho) g^2`,
    :math:`\theta \leftarrow \theta - \eta g / (\sqrt E + \epsilon)`; writes ``param`` and ``mean_sq``. With
    ``mean_grad`` it is centered, with ``velocity`` it has momentum; these are written, too.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> w, E = np.array([1.0]), np.array([0.0])
    >>> F.rmsprop_step(w, np.array([4.0]), E, lr=0.25, rho=0.75, eps=0.0)
    True
    >>> w, E
    (array([0.5]), array([4.]))

    See :class:`fastopt.RMSprop`.
    """
    if velocity is None and momentum != 0.0:
        raise ValueError("rmsprop_step with momentum requires velocity=")
    hyper = {
        "lr": lr,
        "rho": rho,
        "eps": eps,
        "eps_mode": eps_mode,
        "momentum": momentum,
        "lr_in_velocity": lr_in_velocity,
    }
    rule = rmsprop_rule(mean_grad is not None, velocity is not None)
    states = [s for s in (mean_sq, mean_grad, velocity) if s is not None]
    return make_step(rmsprop_step, rule, param, grad, states, 1, hyper, options)


def adam_step(
    param: Arrays,
    grad: Arrays,
    m: Arrays,
    v: Arrays,
    *,
    step: int,
    lr: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    eps_mode: Literal["outside", "hat"] = "outside",
    eps_root: float = 0.0,
    bias_correction: bool = True,
    nesterov: bool = False,
    v_max: Arrays | None = None,
    amsgrad_max: Literal["raw", "corrected"] = "raw",
    **options: Unpack[StepOptions],
) -> bool:
    r"""One step of Adam, the ``step``-th (from 1); writes ``param``, ``m`` and ``v``. With ``v_max``, which is
    written, too, it is AMSGrad.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> w, m, v = np.array([1.0]), np.zeros(1), np.zeros(1)
    >>> F.adam_step(w, np.array([4.0]), m, v, step=1, lr=0.5, eps=0.0)
    True
    >>> w.round(12), m.round(12), v.round(12)
    (array([0.5]), array([0.4]), array([0.016]))

    See :class:`fastopt.Adam`.
    """
    hyper = {
        "lr": lr,
        "beta1": beta1,
        "beta2": beta2,
        "eps": eps,
        "eps_mode": eps_mode,
        "eps_root": eps_root,
        "bias_correction": bias_correction,
        "nesterov": nesterov,
        "amsgrad_max": amsgrad_max,
    }
    rule = "adam" if v_max is None else "adam_amsgrad"
    states = [m, v] if v_max is None else [m, v, v_max]
    return make_step(adam_step, rule, param, grad, states, step, hyper, options)
