"""Norms of lists of arrays and gradient clipping; public as part of :mod:`fastopt.functional`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from fastopt import _core
from fastopt._array_utils import Array, Arrays, is_array
from fastopt._params import LabelFn, Params


def global_norm(arrays: Arrays, *, norm_type: float | Literal["2", "1", "max"] = 2) -> float:
    r"""The norm of all elements of all arrays, :math:`\sqrt{\sum_i x_i^2}`, in one read.

    It does not overflow or underflow if the result is in range, and it is bitwise identical however the
    elements are split into arrays.

    Args:
        arrays: one array, or a list, tuple or dict of arrays; only read.
        norm_type: 2, 1 (:math:`\sum |x_i|`), or ``float("inf")`` or ``"max"`` (:math:`\max |x_i|`).

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> F.global_norm([np.array([3.0]), np.array([0.0, 4.0])])
    5.0
    """
    listed, label = _as_list("arrays", arrays)
    return _core.global_norm(listed, {"norm_type": norm_type}, label)


def clip_grad_norm(
    grads: Arrays,
    max_norm: float,
    *,
    norm_type: float | Literal["2", "1", "max"] = 2,
    clip_eps: float = 1e-6,
    scope: Literal["global", "tensor"] = "global",
) -> float | list[float]:
    r"""Scale gradients in place by :math:`\min(1, c / (\lVert g \rVert + \mathtt{clip\_eps}))`. A step with
    ``clip_norm`` does the same without the extra write.

    Args:
        grads: one array, or a list, tuple or dict of arrays; written in place.
        max_norm: :math:`c`, 0 or more.
        norm_type: as in :func:`global_norm`.
        clip_eps: 1e-6 as in torch, or 0 as in optax and Keras.
        scope: ``"global"`` for one norm of all arrays, ``"tensor"`` for one per array.

    Returns:
        The norm before clipping; with ``scope="tensor"`` a list of norms, in the order of the arrays.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> g = np.array([3.0, 4.0])
    >>> F.clip_grad_norm(g, 1.0, clip_eps=0.0)
    5.0
    >>> g
    array([0.6, 0.8])

    Source: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063.
    """
    options = {"max_norm": max_norm, "norm_type": norm_type, "clip_eps": clip_eps, "scope": scope}
    listed, label = _as_list("grads", grads)
    return _core.clip_grad_norm(listed, options, label)


def clip_grad_value(grads: Arrays, value: float) -> None:
    r"""Limit every element to :math:`[-\text{value}, \text{value}]`, in place; NaN stays NaN.

    >>> import numpy as np
    >>> from fastopt import functional as F
    >>> g = np.array([3.0, -0.5])
    >>> F.clip_grad_value(g, 1.0)
    >>> g
    array([ 1. , -0.5])
    """
    listed, label = _as_list("grads", grads)
    _core.clip_grad_value(listed, {"value": value}, label)


def _as_list(role: str, arrays: Any) -> tuple[list[Array], LabelFn | None]:
    """Return the arrays as a list, and their labels for messages."""
    if isinstance(arrays, (list, tuple)):
        return list(arrays), None
    if is_array(arrays):
        return [arrays], _alone
    if isinstance(arrays, Mapping):
        return list(arrays.values()), Params.parse(arrays).label
    raise TypeError(
        f"{role} has type {type(arrays).__name__}, expected an array, or a list, tuple or dict of arrays"
    )


def _alone(role: str, _: int) -> str:
    return role
