r"""L1 and L2 penalty terms of the loss.

An optimizer with ``l1`` or ``l2`` adds the *gradients* of these penalties itself
(:class:`fastopt.StepOptions`). Their values are needed only to report the loss that is minimized.
``weight_decay`` has no value: decoupled decay is not the gradient of a penalty, except for plain SGD.
"""

from __future__ import annotations

from typing import Any

from fastopt import _checks
from fastopt._array_api import detach
from fastopt._norms import global_norm
from fastopt._optimizer import Optimizer
from fastopt._params import Params

__all__ = ["l1", "l2", "of"]


def l1(params: Any, strength: float) -> float:
    r"""The L1 penalty :math:`\lambda \sum_i |\theta_i|`; an optimizer with ``l1`` adds its gradient,
    :math:`\lambda \operatorname{sign}(\theta)`.

    Args:
        params: one array, a sequence, a dict or a list of groups, as an optimizer takes them; only read.
        strength: :math:`\lambda`, 0 or more.

    The sum is computed in float64 in a fixed order, so that its bits do not depend on the number of threads.

    >>> import numpy as np, fastopt
    >>> fastopt.penalties.l1({"w": np.array([1.0, -2.0])}, 0.5)
    1.5

    Conventions: Keras's ``L1``. Source: Goodfellow, Bengio & Courville 2016, section 7.1.2.
    """
    return _checks.real("strength", strength, "[0, inf)") * global_norm(_arrays(params), norm_type=1)


def l2(params: Any, strength: float, *, halved: bool = True) -> float:
    r"""The L2 penalty :math:`\frac\lambda2 \sum_i \theta_i^2`; an optimizer with ``l2`` adds its gradient,
    :math:`\lambda \theta`.

    Args:
        params: as in :func:`l1`.
        strength: :math:`\lambda`, 0 or more.
        halved: ``False`` for :math:`\lambda \sum_i \theta_i^2`, Keras's ``L2``, whose gradient is twice
            as large: that of a step with ``l2=2 * strength``.

    >>> import numpy as np, fastopt
    >>> fastopt.penalties.l2([np.array([3.0]), np.array([4.0])], 0.5)
    6.25

    Source: Goodfellow, Bengio & Courville 2016, equation 7.2.
    """
    _checks.boolean("halved", halved)
    norm = global_norm(_arrays(params))
    return _checks.real("strength", strength, "[0, inf)") * norm * norm * (0.5 if halved else 1.0)


def of(opt: Optimizer) -> float:
    r"""The penalty that an optimizer minimizes along with the loss: the sum of :func:`l1` and :func:`l2` over
    its groups, each with the ``l1`` and ``l2`` of the group.

    >>> import numpy as np, fastopt
    >>> w = np.array([3.0, -4.0])
    >>> fastopt.penalties.of(fastopt.SGD(w, l1=1.0, l2=2.0))
    32.0
    """
    if not isinstance(opt, Optimizer):
        raise TypeError(f"opt has type {type(opt).__name__}, expected an optimizer")
    return sum(l1(g.params, g.l1) + l2(g.params, g.l2) for g in opt.groups)


def _arrays(params: Any) -> list[Any]:
    return [detach(array) for array in Params.parse(params).arrays]
