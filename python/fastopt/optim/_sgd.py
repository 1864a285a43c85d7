"""Gradient descent, plain and with momentum."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from fastopt import functional as F
from fastopt._array_utils import Array
from fastopt._functional_step import nesterov_rule, velocity_hyper
from fastopt._optimizer import Optimizer
from fastopt._options import StepOptions
from fastopt._typing import Unpack


class SGD(Optimizer):
    r"""Gradient descent.

    .. math:: \theta \leftarrow \theta - \eta g

    Args:
        params: parameters to train; updated in place by :meth:`Optimizer.step`.
        lr: the learning rate :math:`\eta`, 0 or more.
        **options: penalties, weight decay, clipping and scaling, see :class:`fastopt.StepOptions`.

    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, -2.0])
    >>> opt = fastopt.SGD(w, lr=0.1)
    >>> opt.step(2 * w)  # the gradient of w**2
    >>> w
    array([ 0.8, -1.6])

    Source: Robbins & Monro 1951; Goodfellow, Bengio & Courville 2016, Algorithm 8.1.
    """

    def __init__(self, params: Any, lr: float = 1e-2, **options: Unpack[StepOptions]) -> None:
        super().__init__(params, "sgd", {"lr": lr}, options)


class Momentum(Optimizer):
    r"""Gradient descent with momentum.

    .. math:: v \leftarrow \gamma v + \eta (1 - \tau) g, \qquad \theta \leftarrow \theta - v

    With ``lr_in_velocity=False``, as in torch, :math:`v \leftarrow \gamma v + (1 - \tau) g` and
    :math:`\theta \leftarrow \theta - \eta v`, which is equivalent while the learning rate is constant.

    Args:
        params: parameters to train; updated in place by :meth:`Optimizer.step`.
        lr: the learning rate :math:`\eta`, 0 or more.
        momentum: :math:`\gamma`, from 0 to 1.
        dampening: :math:`\tau`, from 0 to 1.
        first_step: with dampening, the first velocity is computed from the undampened gradient (``"grad"``,
            torch) or from :math:`(1 - \tau) g` as in every step (``"zero"``).
        lr_in_velocity: whether the learning rate is part of the velocity (Keras, Chainer) or multiplies it
            (torch).
        state_dtype: ``"float32"`` for a float32 velocity of 16-bit parameters.
        **options: penalties, weight decay, clipping and scaling, see :class:`fastopt.StepOptions`.

    State: ``velocity``.

    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, -2.0])
    >>> opt = fastopt.Momentum(w, lr=0.1, momentum=0.5)
    >>> for _ in range(2):
    ...     opt.step(2 * w)
    >>> w, opt.velocity
    (array([ 0.54, -1.08]), [array([ 0.26, -0.52])])

    Source: Polyak 1964; Goodfellow, Bengio & Courville 2016, Algorithm 8.2.
    """

    velocity: list[Array]
    momentum: float
    dampening: float
    first_step: Literal["grad", "zero"]
    lr_in_velocity: bool
    state_dtype: str | None

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        momentum: float = 0.9,
        *,
        dampening: float = 0.0,
        first_step: Literal["grad", "zero"] = "grad",
        lr_in_velocity: bool = True,
        state_dtype: str | None = None,
        **options: Unpack[StepOptions],
    ) -> None:
        hyper = velocity_hyper(lr, momentum, dampening, first_step, lr_in_velocity)
        super().__init__(params, "momentum", hyper, options, state_dtype=state_dtype)


class Nesterov(Optimizer):
    r"""Nesterov's accelerated gradient.

    With ``form="lookahead"`` the caller computes the gradient at the point to which momentum will move the
    parameters, :math:`\theta - \gamma v`, which :meth:`lookahead` returns:

    .. math:: v \leftarrow \gamma v + \eta \nabla J(\theta - \gamma v), \qquad \theta \leftarrow \theta - v

    With ``form="applied"`` the gradient is taken at the parameters, as in any training loop:

    .. math:: v \leftarrow \gamma v + \eta g, \qquad \theta \leftarrow \theta - (\gamma v + \eta g)

    (Keras), or with ``lr_in_velocity=False`` :math:`v \leftarrow \gamma v + g`,
    :math:`\theta \leftarrow \theta - (\eta \gamma v + \eta g)` (torch, optax).

    Args:
        params: parameters to train; updated in place by :meth:`Optimizer.step`.
        lr: the learning rate :math:`\eta`, 0 or more.
        momentum: :math:`\gamma`, from 0 to 1.
        form: ``"lookahead"`` or ``"applied"``; fixed at construction.
        dampening, first_step, lr_in_velocity, state_dtype: as in :class:`Momentum`.
        **options: penalties, weight decay, clipping and scaling, see :class:`fastopt.StepOptions`.

    State: ``velocity``.

    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, -2.0])
    >>> opt = fastopt.Nesterov(w, lr=0.1, momentum=0.5)
    >>> for _ in range(2):
    ...     opt.step(2 * opt.lookahead())
    >>> w
    array([ 0.56, -1.12])

    Source: Nesterov 1983; Sutskever, Martens, Dahl & Hinton 2013, section 2.
    """

    _rule_descriptions: ClassVar[dict[str, str]] = {
        "momentum": "form='lookahead'",
        "nesterov": "form='applied'",
    }

    velocity: list[Array]
    momentum: float
    dampening: float
    first_step: Literal["grad", "zero"]
    lr_in_velocity: bool
    form: Literal["lookahead", "applied"]
    state_dtype: str | None

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        momentum: float = 0.9,
        *,
        form: Literal["lookahead", "applied"] = "lookahead",
        dampening: float = 0.0,
        first_step: Literal["grad", "zero"] = "grad",
        lr_in_velocity: bool = True,
        state_dtype: str | None = None,
        **options: Unpack[StepOptions],
    ) -> None:
        hyper = velocity_hyper(lr, momentum, dampening, first_step, lr_in_velocity)
        super().__init__(
            params,
            nesterov_rule(form),
            hyper,
            options,
            fixed={"form": form},
            state_dtype=state_dtype,
        )

    def lookahead(self) -> Any:
        r"""Return the point :math:`\theta - \gamma v` at which to compute the next gradient
        (:math:`\theta - \eta \gamma v` with ``lr_in_velocity=False``): new arrays, in the form of the
        parameters. Raises ``ValueError`` with ``form="applied"``, whose gradient is taken at the parameters
        themselves."""
        if self.form != "lookahead":
            raise ValueError(
                f"lookahead needs form='lookahead', but this optimizer has form={self.form!r}; "
                "compute the gradient at the parameters"
            )
        points: list[Array] = []
        for group in self.groups:
            points += F.nesterov_lookahead(
                group.params,
                self.velocity[group._slice],
                lr=group.lr,
                momentum=group.momentum,
                lr_in_velocity=group.lr_in_velocity,
            )
        return self._params.unflatten(points)
