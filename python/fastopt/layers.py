"""Layers: functions of :mod:`fastopt.functional` that save what their backward pass needs.

Call ``forward``, then ``backward``. ``train()`` and ``eval()`` select the mode. Between the two calls a layer
keeps only what ``backward`` needs, and releases it there.
"""

from __future__ import annotations

import copy
import secrets
from typing import Any, Literal

import numpy as np

from fastopt import _checks, _core, _state_dict
from fastopt import functional as F
from fastopt._array_utils import Array, full_like
from fastopt._batch_norm import forward_options
from fastopt._generator import Generator
from fastopt._typing import Self

_BATCH_NORM_ARRAYS = ("gamma", "beta", "running_mean", "running_var")
_BATCH_NORM_ENTRIES = (*_BATCH_NORM_ARRAYS, "num_batches_tracked")


class Layer:
    """The base of :class:`BatchNorm` and :class:`Dropout`; not for use by itself."""

    training: bool = True
    _saved: Any = None

    def train(self, mode: bool = True) -> Self:
        """Use training mode (or, with ``mode=False``, evaluation mode) from the next forward on; returns
        the layer."""
        self.training = _checks.boolean("mode", mode)
        return self

    def eval(self) -> Self:
        """Use evaluation mode from the next forward on; returns the layer."""
        return self.train(False)

    def forward(self, x: Array) -> Array:
        """The layer's output."""
        raise NotImplementedError

    def __call__(self, *args: Any, **options: Any) -> Any:
        """The same as ``forward``."""
        return self.forward(*args, **options)

    def _last_saved(self) -> Any:
        if self._saved is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward called without a preceding forward; "
                "each backward needs a forward of its own"
            )
        return self._saved


class BatchNorm(Layer):
    r"""Batch normalization with learnable scale and shift and with running statistics.

    .. math:: y = \mathrm{activation}\Bigl(\gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta
        + \mathrm{residual}\Bigr)

    Args:
        num_features: :math:`C`, the number of channels.
        eps, momentum, momentum_mode, unbiased, single_value, axis, activation: as in
            :func:`fastopt.functional.batch_norm_forward`. With ``momentum=None`` the running statistics
            are the average over all ``num_batches_tracked`` batches.
        affine: whether to create ``gamma`` (ones) and ``beta`` (zeros).
        track_running_stats: whether to create ``running_mean`` (zeros) and ``running_var`` (ones). Without
            them the statistics of the batch are used in evaluation, too.
        like: an array of shape (C,) with the library, device and dtype for ``gamma`` and the other arrays;
            None for NumPy and float32.

    ``gamma``, ``beta``, ``running_mean`` and ``running_var`` are arrays of shape (C,), or None. ``backward``
    sets ``dgamma`` and ``dbeta``. ``num_batches_tracked`` counts the non-empty batches of training.
    The layer refers to ``x`` until ``backward``, so ``x`` must not be changed before.

    >>> import numpy as np, fastopt
    >>> norm = fastopt.BatchNorm(2, eps=0.0)
    >>> norm(np.array([[1.0, 10.0], [3.0, 30.0]]))
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> norm.running_mean
    array([0.2, 2. ], dtype=float32)
    >>> norm.backward(np.array([[1.0, 0.0], [1.0, 0.0]]))
    array([[0., 0.],
           [0., 0.]])
    >>> norm.dbeta
    array([2., 0.], dtype=float32)

    Source: Ioffe & Szegedy 2015, arXiv:1502.03167.
    """

    gamma: Array | None = None
    beta: Array | None = None
    dgamma: Array | None = None
    dbeta: Array | None = None

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        momentum_mode: Literal["update", "keep"] = "update",
        unbiased: bool = True,
        single_value: Literal["error", "zero_var"] = "error",
        axis: int = 1,
        activation: Literal["relu"] | None = None,
        affine: bool = True,
        track_running_stats: bool = True,
        like: Array | None = None,
    ) -> None:
        self.num_features = _checks.count("num_features", num_features)
        forward_options(True, momentum, momentum_mode, eps, axis, unbiased, single_value, activation)
        # As built-in types: an array's owner could change it, and its lookup would take longer.
        self.eps, self.momentum = float(eps), None if momentum is None else float(momentum)
        self.momentum_mode, self.single_value = momentum_mode, single_value
        self.unbiased, self.axis, self.activation = bool(unbiased), axis, activation
        if like is None:
            like = np.empty(self.num_features, np.float32)
        elif (shape := _core.check_array(like, "like")) != (self.num_features,):
            raise ValueError(f"like has shape {shape}, expected ({self.num_features},)")
        tracks = _checks.boolean("track_running_stats", track_running_stats)
        if _checks.boolean("affine", affine):
            self.gamma, self.beta = full_like(like, 1.0), full_like(like, 0.0)
        self.running_mean = full_like(like, 0.0) if tracks else None
        self.running_var = full_like(like, 1.0) if tracks else None
        self.num_batches_tracked = 0

    def forward(self, x: Array, *, residual: Array | None = None, out: Array | None = None) -> Array:
        """Normalize a batch, scale and shift it, add ``residual`` and activate.

        Returns a new array, or ``out``. In training the running statistics are updated. ``x`` must not be
        changed before ``backward``. Arguments and errors are those of
        :func:`fastopt.functional.batch_norm_forward`.
        """
        tracks = self.running_mean is not None
        # A wrong number of channels does not fit gamma or running_mean, so that the call below raises, and x is
        # checked only then. A check before every call would cost host time.
        if self.gamma is None and not tracks:
            self._check_channels(x)
        try:
            y, self._saved = F.batch_norm_forward(
                x,
                self.gamma,
                self.beta,
                self.running_mean,
                self.running_var,
                training=self.training or not tracks,
                momentum=self.momentum,
                momentum_mode=self.momentum_mode,
                eps=self.eps,
                axis=self.axis,
                unbiased=self.unbiased,
                single_value=self.single_value,
                batch=self.num_batches_tracked + 1 if self.momentum is None else None,
                residual=residual,
                activation=self.activation,
                out=out,
            )
        except ValueError:
            self._check_channels(x)
            raise
        if self.training and tracks and self._saved.count:  # an empty batch does not enter the average
            self.num_batches_tracked += 1
        return y

    def _check_channels(self, x: Array) -> None:
        shape = _core.check_array(x, "x")
        found = shape[self.axis : self.axis + 1 or None]
        if found and found[0] != self.num_features:
            raise ValueError(
                f"x has shape {shape}, expected num_features={self.num_features} along axis {self.axis}"
            ) from None

    def backward(self, dy: Array, *, out: Array | None = None) -> Any:
        """Return ``dx`` of the last forward, with a residual ``(dx, dresidual)``; sets ``dgamma``, ``dbeta``.

        ``dx`` is a new array, or ``out``, which may be ``dy``. Raises ``RuntimeError`` without a preceding
        forward, and the errors of :func:`fastopt.functional.batch_norm_backward`.
        """
        dx, self.dgamma, self.dbeta, *residual = F.batch_norm_backward(dy, self._last_saved(), out=out)
        self._saved = None
        return (dx, *residual) if residual else dx

    def state_dict(self) -> dict[str, Any]:
        """Return copies of scale, shift and running statistics, and the number of batches, for a checkpoint."""
        arrays = {name: copy.deepcopy(getattr(self, name)) for name in _BATCH_NORM_ARRAYS}
        return {**arrays, "num_batches_tracked": self.num_batches_tracked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state returned by :meth:`state_dict`. Raises ``ValueError`` or ``TypeError`` if it does not
        fit; the object is then unchanged. The state is written in place; its arrays may be NumPy arrays."""
        _checks.mapping("state", state)
        _state_dict.check_same_keys("state_dict", state, dict.fromkeys(_BATCH_NORM_ENTRIES))
        count = _checks.count("num_batches_tracked", state["num_batches_tracked"])
        mine, values = {name: getattr(self, name) for name in _BATCH_NORM_ARRAYS}, {}
        for name, array in mine.items():
            if (array is None) != (state[name] is None):
                found, expected = ("None" if a is None else "an array" for a in (state[name], array))
                raise ValueError(f"state_dict's {name} is {found}, expected {expected}")
            if array is not None:
                values[name] = _state_dict.convert_array(name, state[name], array)
        _core.check_targets([mine[name] for name in values], "", lambda _, i: [*values][i])
        for name, value in values.items():
            mine[name][...] = value
        self.num_batches_tracked = count

    def __getstate__(self) -> dict[str, Any]:
        """Saved activations are not copied: a copy must run ``forward`` before ``backward``."""
        return {**self.__dict__, "_saved": None}

    def __repr__(self) -> str:
        affine, tracks = self.gamma is not None, self.running_mean is not None
        options = {**self.__dict__, "affine": affine, "track_running_stats": tracks, "like": None}
        return f"BatchNorm({self.num_features}{_changed_options(BatchNorm, options)})"


class Dropout(Layer):
    r"""Dropout: each element is 0 with probability :math:`p`, else :math:`x / (1 - p)`.

    .. math:: y = m \frac{x}{1 - p}, \qquad P(m = 0) = p

    Args:
        p: the probability of dropping an element, from 0 to 1.
        generator: a :class:`fastopt.Generator`, or the seed for one. Equal seeds repeat the numbers. For masks
            independent of each other and of initial weights, let layers and :mod:`fastopt.init` share one
            generator or give each its own seed. ``None`` takes a seed from the operating system, which is
            then ``layer.generator.seed``.
        scaling: ``"inverted"``, or ``"test_time"`` to scale by :math:`1 - p` in evaluation instead.
        channel_axis: drop whole channels along this axis.
        alpha: alpha dropout, for SELU.

    See :func:`fastopt.functional.dropout_forward` for details. ``layer.generator.state_dict()`` in a
    checkpoint resumes the same masks. Evaluation uses no random numbers.

    >>> import numpy as np, fastopt
    >>> layer = fastopt.Dropout(0.5, generator=0)
    >>> layer(np.ones(8))
    array([0., 2., 2., 2., 2., 2., 0., 2.])
    >>> layer.backward(np.ones(8))
    array([0., 2., 2., 2., 2., 2., 0., 2.])
    >>> layer.eval()(np.ones(3))
    array([1., 1., 1.])

    Source: Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov 2014, JMLR 15.
    """

    def __init__(
        self,
        p: float = 0.5,
        *,
        generator: Generator | int | None = None,
        scaling: Literal["inverted", "test_time"] = "inverted",
        channel_axis: int | None = None,
        alpha: bool = False,
    ) -> None:
        _core.check_dropout(p, scaling, alpha, channel_axis)
        if channel_axis is not None and not (-64 <= channel_axis < 64 and channel_axis != 0):
            raise ValueError(
                f"channel_axis must be an axis other than 0, the batch, in [-64, 64), got {channel_axis!r}"
            )
        self.p, self.scaling, self.channel_axis, self.alpha = float(p), scaling, channel_axis, alpha
        if not isinstance(generator, Generator):
            generator = Generator(secrets.randbits(64) if generator is None else _read_seed(generator))
        self.generator = generator

    def forward(
        self,
        x: Array,
        *,
        residual: Array | None = None,
        bias: Array | None = None,
        out: Array | None = None,
    ) -> Array:
        """Return ``residual + dropout(x + bias)``, each term if given, in a new array or in ``out``.

        In training every call draws a new mask. A call that raises leaves the generator unchanged. Arguments
        and errors are those of :func:`fastopt.functional.dropout_forward`.
        """
        training, generator = self.training, self.generator
        offset = generator.next_offset() if training else 0
        try:
            y, self._saved = F.dropout_forward(
                x,
                self.p,
                seed=generator.key,
                offset=offset,
                training=training,
                scaling=self.scaling,
                residual=residual,
                bias=bias,
                channel_axis=self.channel_axis,
                alpha=self.alpha,
                out=out,
            )
        except Exception:
            if training:
                generator._undo_next_offset(offset)
            raise
        return y

    def backward(self, dy: Array, *, out: Array | None = None) -> Array:
        """Return ``dx`` of the last forward in a new array or in ``out``, which may be ``dy``.

        The gradient of the residual is ``dy`` itself, that of the bias ``dx`` summed over all axes but the
        last. Raises ``RuntimeError`` without a preceding forward, and the errors of
        :func:`fastopt.functional.dropout_backward`.
        """
        dx = F.dropout_backward(dy, self._last_saved(), out=out)
        self._saved = None
        return dx

    def __repr__(self) -> str:
        return f"Dropout({self.p}{_changed_options(Dropout, self.__dict__)})"


def _read_seed(generator: Any) -> int:
    try:
        return _checks.uint64("generator", generator)
    except TypeError:
        raise TypeError(
            f"generator must be a fastopt.Generator or an integer seed, got {generator!r}"
        ) from None


def _changed_options(layer: type[Layer], values: dict[str, Any]) -> str:
    """Keyword arguments of a layer that differ from their defaults, for its repr."""
    defaults: dict[str, Any] = vars(layer)["__init__"].__kwdefaults__
    changed = {name: values[name] for name in defaults if values[name] != defaults[name]}
    return "".join(f", {name}={value!r}" for name, value in changed.items())
