"""The optimizers.

Every class takes ``params`` as one array, a sequence, a dict name -> array or a list of groups
(``[{"params": [...], "lr": ...}, ...]``), and the options of :class:`fastopt.Around` by keyword. Arrays are
float16, bfloat16, float32 or float64, dense in memory in any order of axes, and are written in place;
16-bit ones are computed in float32. Hyper-parameters are plain attributes (``opt.lr = 1e-4``) and so is the
state, lists of arrays in the order of the parameters. ``state_dtype="float32"`` keeps the state of 16-bit
parameters in float32.

Wrong values raise ``ValueError``, wrong kinds ``TypeError``, before anything is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from fastopt import _checks
from fastopt import functional as F
from fastopt._around import AdamOptions, Around
from fastopt._base import Optimizer
from fastopt._params import Array
from fastopt._steps import has_momentum, nesterov_rule, rmsprop_rule, velocity_hyper
from fastopt._typing import Unpack


class SGD(Optimizer):
    r"""Gradient descent.

    .. math:: \theta \leftarrow \theta - \eta g

    Args:
        params: what to train; written in place by :meth:`Optimizer.step`.
        lr: the rate :math:`\eta`, 0 or more.
        **around: penalties, decay and clipping, see :class:`fastopt.Around`.

    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, -2.0])
    >>> opt = fastopt.SGD(w, lr=0.1)
    >>> opt.step(2 * w)  # the gradient of w**2
    >>> w
    array([ 0.8, -1.6])

    Source: Robbins & Monro 1951; Goodfellow, Bengio & Courville 2016, Algorithm 8.1.
    """

    def __init__(self, params: Any, lr: float = 1e-2, **around: Unpack[Around]) -> None:
        super().__init__(params, "sgd", {"lr": lr}, around)


class Momentum(Optimizer):
    r"""Gradient descent with momentum.

    .. math:: v \leftarrow \gamma v + \eta (1 - \tau) g, \qquad \theta \leftarrow \theta - v

    With ``lr_in_velocity=False``, as in torch, :math:`v \leftarrow \gamma v + (1 - \tau) g` and
    :math:`\theta \leftarrow \theta - \eta v`: the same path until the rate changes.

    Args:
        params: what to train; written in place by :meth:`Optimizer.step`.
        lr: the rate :math:`\eta`, 0 or more.
        momentum: :math:`\gamma`, from 0 to 1.
        dampening: :math:`\tau`, from 0 to 1.
        first_step: with dampening, what enters the first velocity: the whole gradient (``"grad"``,
            torch) or :math:`(1 - \tau) g` as in every step (``"zero"``).
        lr_in_velocity: whether the rate enters the velocity (Keras, Chainer) or stands outside (torch).
        state_dtype: ``"float32"`` for a float32 velocity of 16-bit parameters.
        **around: penalties, decay and clipping, see :class:`fastopt.Around`.

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
        **around: Unpack[Around],
    ) -> None:
        hyper = velocity_hyper(lr, momentum, dampening, first_step, lr_in_velocity)
        super().__init__(params, "momentum", hyper, around, state_dtype=state_dtype)


class Nesterov(Optimizer):
    r"""Nesterov's accelerated gradient.

    With ``form="lookahead"`` the gradient is the caller's to take where momentum is about to carry the
    parameters, at :math:`\theta - \gamma v`, which :meth:`lookahead` gives:

    .. math:: v \leftarrow \gamma v + \eta \nabla J(\theta - \gamma v), \qquad \theta \leftarrow \theta - v

    With ``form="applied"`` the gradient is taken at the parameters, as any training loop has it:

    .. math:: v \leftarrow \gamma v + \eta g, \qquad \theta \leftarrow \theta - (\gamma v + \eta g)

    (Keras), or with ``lr_in_velocity=False`` :math:`v \leftarrow \gamma v + g`,
    :math:`\theta \leftarrow \theta - (\eta \gamma v + \eta g)` (torch, optax).

    Args:
        params: what to train; written in place by :meth:`Optimizer.step`.
        lr: the rate :math:`\eta`, 0 or more.
        momentum: :math:`\gamma`, from 0 to 1.
        form: ``"lookahead"`` or ``"applied"``; fixed once made.
        dampening, first_step, lr_in_velocity, state_dtype: as in :class:`Momentum`.
        **around: penalties, decay and clipping, see :class:`fastopt.Around`.

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

    _kinds: ClassVar[dict[str, str]] = {"momentum": "form='lookahead'", "nesterov": "form='applied'"}

    velocity: list[Array]
    momentum: float
    dampening: float
    first_step: Literal["grad", "zero"]
    lr_in_velocity: bool
    form: Literal["lookahead", "applied"]

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
        **around: Unpack[Around],
    ) -> None:
        hyper = velocity_hyper(lr, momentum, dampening, first_step, lr_in_velocity)
        super().__init__(
            params,
            nesterov_rule(form),
            hyper,
            around,
            fixed={"form": form},
            state_dtype=state_dtype,
        )

    def lookahead(self) -> Any:
        r"""The point :math:`\theta - \gamma v` to take the next gradient at (:math:`\theta - \eta \gamma v`
        with ``lr_in_velocity=False``): new arrays, in the form of the parameters. ``ValueError`` with
        ``form="applied"``, whose gradient is taken at the parameters themselves."""
        if self.form != "lookahead":
            raise ValueError(
                f"form={self.form!r} has no point to look ahead to: take its gradient at the parameters"
            )
        points: list[Array] = []
        for group in self.groups:
            points += F.nesterov_lookahead(
                group.params,
                self.velocity[group._part],
                lr=group.lr,
                momentum=group.momentum,
                lr_in_velocity=group.lr_in_velocity,
            )
        return self._layout.restore(points)


class AdaGrad(Optimizer):
    r"""AdaGrad: a rate for every parameter, which only falls.

    .. math:: G \leftarrow G + g^2, \qquad \theta \leftarrow \theta - \eta_t \frac{g}{\sqrt{G} + \epsilon}

    with :math:`\eta_t = \eta / (1 + (t - 1)\,\mathtt{lr\_decay})`.

    Args:
        params: what to train; written in place by :meth:`Optimizer.step`.
        lr: the rate :math:`\eta`, 0 or more.
        eps: :math:`\epsilon`, 0 or more.
        eps_mode: ``"outside"`` the root, or ``"inside"``: :math:`\sqrt{G + \epsilon}` (optax, Keras).
        initial_accumulator: what :math:`G` starts from, 0 or more (optax and Keras: 0.1).
        lr_decay: torch's decay of the rate, 0 or more.
        state_dtype: ``"float32"`` for float32 sums of 16-bit parameters.
        **around: penalties, decay and clipping, see :class:`fastopt.Around`.

    State: ``sum_sq``.

    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, -2.0])
    >>> fastopt.AdaGrad(w, lr=0.1).step(2 * w)
    >>> w  # the first step has the rate's size, whatever the gradient's
    array([ 0.9, -1.9])

    Source: Duchi, Hazan & Singer 2011, JMLR 12.
    """

    sum_sq: list[Array]
    eps: float
    eps_mode: Literal["outside", "inside"]
    lr_decay: float
    initial_accumulator: float

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
        **around: Unpack[Around],
    ) -> None:
        hyper = {"lr": lr, "eps": eps, "eps_mode": eps_mode, "lr_decay": lr_decay}
        super().__init__(
            params,
            "adagrad",
            hyper,
            around,
            fixed={"initial_accumulator": _checks.accumulator(initial_accumulator)},
            state_dtype=state_dtype,
        )


class RMSprop(Optimizer):
    r"""RMSprop: AdaGrad that forgets.

    .. math::
        E \leftarrow \rho E + (1 - \rho) g^2, \qquad
        \theta \leftarrow \theta - \eta \frac{g}{\sqrt{E} + \epsilon}

    Centred, :math:`\bar g \leftarrow \rho \bar g + (1 - \rho) g` and :math:`E - \bar g^2`, not below 0, takes
    the place of :math:`E` under the root. With momentum, :math:`v \leftarrow \mu v + g / (\sqrt{E} + \epsilon)`
    and :math:`\theta \leftarrow \theta - \eta v`.

    Args:
        params: what to train; written in place by :meth:`Optimizer.step`.
        lr: the rate :math:`\eta`, 0 or more.
        rho: :math:`\rho`, from 0 to 1.
        eps: :math:`\epsilon`, 0 or more.
        eps_mode: ``"outside"`` the root, or ``"inside"``: :math:`\sqrt{E + \epsilon}` (optax, Keras, TF).
        centered: fixed once made.
        momentum: :math:`\mu`, from 0 to 1; it must be above 0 from the start, in one group at least, to
            be changed later.
        lr_in_velocity: with momentum, whether the rate enters :math:`v` (optax, TF) or stands outside
            (torch).
        initial_accumulator: what :math:`E` starts from, 0 or more (TF 1: 1).
        state_dtype: ``"float32"`` for float32 state of 16-bit parameters.
        **around: penalties, decay and clipping, see :class:`fastopt.Around`.

    State: ``mean_sq``, and as asked for ``mean_grad``, ``velocity``.

    >>> import numpy as np, fastopt
    >>> w = np.array([1.0, -2.0])
    >>> opt = fastopt.RMSprop(w, lr=0.1, rho=0.75)
    >>> opt.step(2 * w)
    >>> w, opt.mean_sq
    (array([ 0.8, -1.8]), [array([1., 4.])])

    Source: Tieleman & Hinton 2012, lecture 6e; Graves 2013, arXiv:1308.0850, equations 38 to 45.
    """

    _kinds: ClassVar[dict[str, str]] = {
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
        **around: Unpack[Around],
    ) -> None:
        hyper = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "eps_mode": eps_mode,
            "momentum": momentum,
            "lr_in_velocity": lr_in_velocity,
        }
        super().__init__(
            params,
            lambda groups: rmsprop_rule(
                _checks.switch("centered", centered),
                has_momentum(momentum) or any(has_momentum(group["momentum"]) for group in groups),
            ),
            hyper,
            around,
            fixed={
                "centered": centered,
                "initial_accumulator": _checks.accumulator(initial_accumulator),
            },
            state_dtype=state_dtype,
        )

    def _checked(self, values: dict[str, Any]) -> dict[str, Any]:
        values = super()._checked(values)
        if values.get("momentum", 0.0) != 0.0 and "velocity" not in self._states:
            raise ValueError(
                "momentum must be above 0 from the start to be changed: this optimizer has no velocity"
            )
        return values


class Adam(Optimizer):
    r"""Adam.

    .. math::
        m &\leftarrow \beta_1 m + (1 - \beta_1) g \\
        v &\leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        \theta &\leftarrow \theta - \eta \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    Args:
        params: what to train; written in place by :meth:`Optimizer.step`.
        lr: the rate :math:`\eta`, 0 or more.
        betas: :math:`\beta_1, \beta_2`, each from 0 to below 1; also ``opt.beta1``, ``opt.beta2``.
        eps: :math:`\epsilon`, 0 or more.
        eps_mode: ``"outside"``, or ``"hat"``, the paper's "epsilon hat" that Keras, ONNX and scikit-learn
            use: :math:`\eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \frac{m}{\sqrt v + \epsilon}`.
        eps_root: a second epsilon under the root (optax), 0 or more.
        bias_correction: ``False`` leaves :math:`1 - \beta^t` out (BERT's Adam).
        nesterov: Nesterov's momentum (Dozat 2016; optax).
        amsgrad: the largest :math:`v` so far under the root; fixed once made.
        amsgrad_max: whether that maximum is of ``"raw"`` :math:`v`, corrected afterwards (torch), or of the
            ``"corrected"`` one (optax).
        state_dtype: ``"float32"`` for float32 moments of 16-bit parameters. Advisable for float16: squares
            of gradients below 2e-4 vanish in it.
        **around: penalties, decay and clipping, see :class:`fastopt.Around`.

    State: ``m``, ``v``, and with AMSGrad ``v_max``.

    >>> import numpy as np, fastopt
    >>> w = {"weight": np.ones((2, 2), np.float32), "bias": np.zeros(2, np.float32)}
    >>> opt = fastopt.Adam(w, lr=0.5, clip_norm=1.0)
    >>> opt.step({"weight": np.ones((2, 2), np.float32), "bias": np.ones(2, np.float32)})
    >>> w["weight"].round(4).tolist(), opt.step_count
    ([[0.5, 0.5], [0.5, 0.5]], 1)

    Source: Kingma & Ba 2015, Algorithm 1, arXiv:1412.6980; Reddi, Kale & Kumar 2018 (AMSGrad).
    """

    _kinds: ClassVar[dict[str, str]] = {"adam": "amsgrad=False", "adam_amsgrad": "amsgrad=True"}

    m: list[Array]
    v: list[Array]
    v_max: list[Array]
    betas: tuple[float, float]
    beta1: float
    beta2: float
    eps: float
    eps_mode: Literal["outside", "hat"]
    eps_root: float
    bias_correction: bool
    nesterov: bool
    amsgrad: bool
    amsgrad_max: Literal["raw", "corrected"]

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        eps_mode: Literal["outside", "hat"] = "outside",
        eps_root: float = 0.0,
        bias_correction: bool = True,
        nesterov: bool = False,
        amsgrad: bool = False,
        amsgrad_max: Literal["raw", "corrected"] = "raw",
        state_dtype: str | None = None,
        **around: Unpack[Around],
    ) -> None:
        hyper = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "eps_mode": eps_mode,
            "eps_root": eps_root,
            "bias_correction": bias_correction,
            "nesterov": nesterov,
            "amsgrad_max": amsgrad_max,
        }
        super().__init__(
            params,
            "adam_amsgrad" if _checks.switch("amsgrad", amsgrad) else "adam",
            hyper,
            around,
            fixed={"amsgrad": amsgrad},
            state_dtype=state_dtype,
        )


class AdamW(Adam):
    r"""Adam with decoupled weight decay: :class:`Adam` whose ``weight_decay`` is 0.01 unless given.

    .. math:: \theta \leftarrow \theta (1 - \eta \lambda), \quad \text{then Adam's step.}

    Args:
        params, lr, betas, eps: as in :class:`Adam`.
        weight_decay: :math:`\lambda`, 0 or more.
        **options: the others of :class:`Adam`.

    >>> import numpy as np, fastopt
    >>> w = np.array([1.0])
    >>> opt = fastopt.AdamW(w, lr=0.1, weight_decay=0.5)
    >>> opt.step(np.array([0.0]))
    >>> w
    array([0.95])

    Source: Loshchilov & Hutter 2019, Algorithm 2, arXiv:1711.05101; the paper's decay without the rate
    is ``decay_scale="none"``.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        weight_decay: float = 1e-2,
        **options: Unpack[AdamOptions],
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay=weight_decay, **options)
