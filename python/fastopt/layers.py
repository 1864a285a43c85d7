"""Layers: functions of :mod:`fastopt.functional` that remember what their backward needs.

A layer is called forward, then backward; ``train()`` and ``eval()`` say which of its two forms it has. It keeps
nothing of the arrays it is given but what backward needs, and lets that go there.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Literal

from fastopt import _core
from fastopt import functional as F
from fastopt._generator import Generator
from fastopt._params import Array

if TYPE_CHECKING:
    from typing_extensions import Self


class Layer:
    """The base of :class:`Dropout`; not for use by itself."""

    training: bool = True
    _saved: Any = None

    def train(self) -> Self:
        """Behave as in training, from the next forward on; returns the layer."""
        self.training = True
        return self

    def eval(self) -> Self:
        """Behave as in evaluation, from the next forward on; returns the layer."""
        self.training = False
        return self

    def forward(self, x: Array) -> Array:
        """The layer's output."""
        raise NotImplementedError

    def __call__(self, *args: Any, **options: Any) -> Any:
        """The same as ``forward``."""
        return self.forward(*args, **options)

    def _last_saved(self) -> Any:
        if self._saved is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward needs a forward before it, one for each call"
            )
        return self._saved


class Dropout(Layer):
    r"""Dropout: each element is zero with probability :math:`p`, or :math:`x / (1 - p)`.

    .. math:: y = m \frac{x}{1 - p}, \qquad P(m = 0) = p

    Args:
        p: the probability to drop, from 0 to 1.
        generator: a :class:`fastopt.Generator`, which layers may share, or the seed for one. ``None`` takes
            a seed from the operating system; ``layer.generator.seed`` tells which.
        scaling: ``"inverted"``, or ``"test_time"`` to scale by :math:`1 - p` in evaluation instead.
        channel_axis: drop whole channels along this axis.
        alpha: alpha dropout, for SELU.

    :func:`fastopt.functional.dropout_forward` describes them. ``layer.generator.state_dict()`` in a checkpoint
    resumes the same masks. Evaluation takes no random numbers.

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
        if generator is None:
            generator = secrets.randbits(64)
        self.p, self.scaling, self.channel_axis, self.alpha = p, scaling, channel_axis, alpha
        self.generator = generator if isinstance(generator, Generator) else Generator(generator)

    def forward(
        self,
        x: Array,
        *,
        residual: Array | None = None,
        bias: Array | None = None,
        out: Array | None = None,
    ) -> Array:
        """``residual + dropout(x + bias)``, each if given; a new array, or written to ``out``.

        In training every call draws another mask. Arguments and errors are those of
        :func:`fastopt.functional.dropout_forward`.
        """
        offset = self.generator.next_offset() if self.training else 0
        y, self._saved = F.dropout_forward(
            x,
            self.p,
            seed=self.generator.key,
            offset=offset,
            training=self.training,
            scaling=self.scaling,
            residual=residual,
            bias=bias,
            channel_axis=self.channel_axis,
            alpha=self.alpha,
            out=out,
        )
        return y

    def backward(self, dy: Array, *, out: Array | None = None) -> Array:
        """``dx`` of the last forward: a new array, or written to ``out``, which may be ``dy``.

        The gradient by a residual is ``dy`` itself, that by a bias ``dx`` summed over all axes but the last.
        ``RuntimeError`` without a forward; otherwise as :func:`fastopt.functional.dropout_backward`.
        """
        dx = F.dropout_backward(dy, self._last_saved(), out=out)
        self._saved = None
        return dx

    def __repr__(self) -> str:
        options = f"{self.p}, generator={self.generator!r}"
        if self.scaling != "inverted":
            options += f", scaling={self.scaling!r}"
        if self.channel_axis is not None:
            options += f", channel_axis={self.channel_axis}"
        return f"Dropout({options}, alpha=True)" if self.alpha else f"Dropout({options})"
