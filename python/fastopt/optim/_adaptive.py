"""Optimizers with a learning rate per parameter, from the squares of its gradients."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from fastopt import _checks
from fastopt._array_utils import Array
from fastopt._functional_step import has_momentum, rmsprop_rule
from fastopt._optimizer import Optimizer
from fastopt._options import StepOptions
from fastopt._typing import Unpack


class AdaGrad(Optimizer):
    r"""AdaGrad: a learning rate per parameter, which only decreases.

    .. math:: G \leftarrow G + g^2, \qquad \theta \leftarrow \theta - \eta_t \frac{g}{\sqrt{G} + \epsilon}

    with :math:`\eta_t = \eta / (1 + (t - 1)\,\mathtt{lr\_decay})`.

    Args:
        params: parameters to train; updated in place by :meth:`Optimizer.step`.
        lr: the learning rate :math:`\eta`, 0 or more.
        eps: :math:`\epsilon`, 0 or more; for 0 see :mod:`fastopt.optim`.
        eps_mode: ``"outside"`` the root, or ``"inside"``: :math:`\sqrt{G + \epsilon}` (optax, Keras).
        initial_accumulator: the initial value of :math:`G`, 0 or more (optax and Keras: 0.1).
        lr_decay: torch's decay of the learning rate, 0 or more.
        state_dtype: ``"float32"`` for float32 sums of 16-bit parameters.
        **options: penalties, weight decay, clipping and scaling, see :class:`fastopt.StepOptions`.

    State: ``sum_sq``.

    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, -2.0])
    >>> fastopt.AdaGrad(w, lr=0.1).step(2 * w)
    >>> w  # the first step has the size of lr, whatever the size of the gradient
    array([ 0.9, -1.9])

    Source: Duchi, Hazan & Singer 2011, JMLR 12.
    """

    sum_sq: list[Array]
    eps: float
    eps_mode: Literal["outside", "inside"]
    lr_decay: float
    initial_accumulator: float
    state_dtype: str | None

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        eps: float = 1e-8,
        *,
        eps_mode: Literal["outside", "inside"] = "outside",
        initial_accumulator: float = 0.0,
        lr_decay: float = 0.0,
        state_dtype: str | None = None,
        **options: Unpack[StepOptions],
    ) -> None:
        hyper = {"lr": lr, "eps": eps, "eps_mode": eps_mode, "lr_decay": lr_decay}
        super().__init__(
            params,
            "adagrad",
            hyper,
            options,
            fixed={"initial_accumulator": _checks.accumulator(initial_accumulator)},
            state_dtype=state_dtype,
        )


class RMSprop(Optimizer):
    r"""RMSprop: AdaGrad with an exponential moving average of the squares.

    .. math::
        E \leftarrow \rho E + (1 - \rho) g^2, \qquad
        \theta \leftarrow \theta - \eta \frac{g}{\sqrt{E} + \epsilon}

    If centered, :math:`\bar g \leftarrow \rho \bar g + (1 - \rho) g`, and :math:`E - \bar g^2`, at least 0,
    replaces :math:`E` under the root. With momentum, :math:`v \leftarrow \mu v + g / (\sqrt{E} + \epsilon)`
    and :math:`\theta \leftarrow \theta - \eta v`.

    Args:
        params: parameters to train; updated in place by :meth:`Optimizer.step`.
        lr: the learning rate :math:`\eta`, 0 or more.
        rho: :math:`\rho`, from 0 to 1.
        eps: :math:`\epsilon`, 0 or more; for 0 see :mod:`fastopt.optim`.
        eps_mode: ``"outside"`` the root, or ``"inside"``: :math:`\sqrt{E + \epsilon}` (optax, Keras, TF).
        centered: whether to subtract :math:`\bar g^2`; fixed at construction.
        momentum: :math:`\mu`, from 0 to 1. It can be changed later only if it is above 0 at construction, for
            at least one group.
        lr_in_velocity: with momentum, whether the learning rate is part of :math:`v` (optax, TF) or
            multiplies it (torch).
        initial_accumulator: the initial value of :math:`E`, 0 or more (TF 1: 1).
        state_dtype: ``"float32"`` for float32 state of 16-bit parameters.
        **options: penalties, weight decay, clipping and scaling, see :class:`fastopt.StepOptions`.

    State: ``mean_sq``; if centered ``mean_grad``; with momentum ``velocity``.

    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, -2.0])
    >>> opt = fastopt.RMSprop(w, lr=0.1, rho=0.75)
    >>> opt.step(2 * w)
    >>> w, opt.mean_sq
    (array([ 0.8, -1.8]), [array([1., 4.])])

    Source: Tieleman & Hinton 2012, lecture 6e; Graves 2013, arXiv:1308.0850, equations 38 to 45.
    """

    _rule_descriptions: ClassVar[dict[str, str]] = {
        rmsprop_rule(centered, moves): f"centered={centered} and {'a' if moves else 'no'} velocity"
        for centered in (False, True)
        for moves in (False, True)
    }

    mean_sq: list[Array]
    mean_grad: list[Array]
    velocity: list[Array]
    rho: float
    eps: float
    eps_mode: Literal["outside", "inside"]
    momentum: float
    lr_in_velocity: bool
    centered: bool
    initial_accumulator: float
    state_dtype: str | None

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        rho: float = 0.9,
        eps: float = 1e-8,
        *,
        eps_mode: Literal["outside", "inside"] = "outside",
        centered: bool = False,
        momentum: float = 0.0,
        lr_in_velocity: bool = False,
        initial_accumulator: float = 0.0,
        state_dtype: str | None = None,
        **options: Unpack[StepOptions],
    ) -> None:
        hyper = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "eps_mode": eps_mode,
            "momentum": momentum,
            "lr_in_velocity": lr_in_velocity,
        }
        centered = _checks.boolean("centered", centered)
        super().__init__(
            params,
            lambda groups: rmsprop_rule(
                centered,
                has_momentum(momentum) or any(has_momentum(group["momentum"]) for group in groups),
            ),
            hyper,
            options,
            fixed={
                "centered": centered,
                "initial_accumulator": _checks.accumulator(initial_accumulator),
            },
            state_dtype=state_dtype,
        )

    def _validate(self, values: dict[str, Any]) -> dict[str, Any]:
        values = super()._validate(values)
        if values.get("momentum", 0.0) != 0.0 and "velocity" not in self._states:
            raise ValueError(
                "momentum cannot be set: this RMSprop was created with momentum=0 and has no velocity; "
                "create it with momentum above 0"
            )
        return values
