"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from fastopt import _checks
from fastopt._array_utils import Array
from fastopt._hyperparams import BETAS
from fastopt._optimizer import Optimizer
from fastopt._options import AdamOptions, StepOptions
from fastopt._typing import Unpack


class Adam(Optimizer):
    r"""Adam.

    .. math::
        m &\leftarrow \beta_1 m + (1 - \beta_1) g \\
        v &\leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        \theta &\leftarrow \theta - \eta \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    Args:
        params: parameters to train; updated in place by :meth:`Optimizer.step`.
        lr: the learning rate :math:`\eta`, 0 or more.
        betas: :math:`\beta_1, \beta_2`, each from 0 to below 1; also ``opt.beta1``, ``opt.beta2``.
        eps: :math:`\epsilon`, 0 or more; for 0 see :mod:`fastopt.optim`.
        eps_mode: ``"outside"``, or ``"hat"``, the paper's "epsilon hat" that Keras, ONNX and scikit-learn
            use: :math:`\eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \frac{m}{\sqrt v + \epsilon}`.
        eps_root: a second epsilon, added under the square root (optax), 0 or more.
        bias_correction: ``False`` omits the division by :math:`1 - \beta^t` (BERT's Adam).
        nesterov: Nesterov's momentum (Dozat 2016; optax).
        amsgrad: use the largest :math:`v` so far under the root; fixed at construction.
        amsgrad_max: whether the maximum is over ``"raw"`` :math:`v`, corrected afterwards (torch), or over
            ``"corrected"`` :math:`v` (optax). With ``eps_mode="hat"``, whose correction is part of the
            learning rate, it is over raw :math:`v` in both cases.
        state_dtype: ``"float32"`` for float32 moments of 16-bit parameters. Recommended for float16, in which
            :math:`(1 - \beta_2) g^2` rounds to 0 up to :math:`2^{-25}`: with :math:`\beta_2 = 0.999` the
            contribution of gradients below 5.5e-3 is lost.
        **options: penalties, weight decay, clipping and scaling, see :class:`fastopt.StepOptions`.

    State: ``m``, ``v``, and with AMSGrad ``v_max``.

    >>> import numpy as np, fastopt
    >>> w = {"weight": np.ones((2, 2), np.float32), "bias": np.zeros(2, np.float32)}
    >>> opt = fastopt.Adam(w, lr=0.5, clip_norm=1.0)
    >>> opt.step({"weight": np.ones((2, 2), np.float32), "bias": np.ones(2, np.float32)})
    >>> w["weight"].round(4).tolist(), opt.step_count
    ([[0.5, 0.5], [0.5, 0.5]], 1)

    Source: Kingma & Ba 2015, Algorithm 1, arXiv:1412.6980; Reddi, Kale & Kumar 2018 (AMSGrad).
    """

    _rule_descriptions: ClassVar[dict[str, str]] = {
        "adam": "amsgrad=False",
        "adam_amsgrad": "amsgrad=True",
    }

    m: list[Array]
    v: list[Array]
    v_max: list[Array]
    beta1: float
    beta2: float
    eps: float
    eps_mode: Literal["outside", "hat"]
    eps_root: float
    bias_correction: bool
    nesterov: bool
    amsgrad: bool
    amsgrad_max: Literal["raw", "corrected"]
    state_dtype: str | None

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
        **options: Unpack[StepOptions],
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
        amsgrad = _checks.boolean("amsgrad", amsgrad)
        super().__init__(
            params,
            "adam_amsgrad" if amsgrad else "adam",
            hyper,
            options,
            fixed={"amsgrad": amsgrad},
            state_dtype=state_dtype,
        )

    @property
    def betas(self) -> tuple[float, float]:
        """``(opt.beta1, opt.beta2)``; settable."""
        return self.beta1, self.beta2

    @betas.setter
    def betas(self, values: tuple[float, float]) -> None:
        self._update_hyperparams({BETAS: values})


class AdamW(Adam):
    r"""Adam with decoupled weight decay: :class:`Adam` with a default ``weight_decay`` of 0.01.

    .. math:: \theta \leftarrow \theta (1 - \eta \lambda), \quad \text{then Adam's step.}

    Args:
        params, lr, betas, eps: as in :class:`Adam`.
        weight_decay: :math:`\lambda`, 0 or more.
        **options: the other options of :class:`Adam`.

    >>> import numpy as np, fastopt
    >>> w = np.array([1.0])
    >>> opt = fastopt.AdamW(w, lr=0.1, weight_decay=0.5)
    >>> opt.step(np.array([0.0]))
    >>> w
    array([0.95])

    Source: Loshchilov & Hutter 2019, Algorithm 2, arXiv:1711.05101; the paper's decay, independent of the
    learning rate, is ``decay_scale="none"``.
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
