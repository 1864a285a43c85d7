"""Parameter tables for the tests of BatchNorm: batches of every form and size, and all kinds of options."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastopt import functional as F
from layouts import permuted
from step_cases import image
from tolerance import DTYPES


@dataclass(frozen=True)
class Form:
    """A shape and its channel axis. ``order``: the axes in memory from slowest to fastest."""

    shape: tuple[int, ...]
    axis: int = 1
    order: tuple[int, ...] | None = None

    @property
    def channels(self) -> int:
        return self.shape[self.axis]

    @property
    def count(self) -> int:
        return int(np.prod(self.shape)) // self.channels

    def place(self, a: np.ndarray) -> np.ndarray:
        return a if self.order is None else permuted(a, self.order)

    def __str__(self) -> str:
        order = "" if self.order is None else f"-in-{''.join(map(str, self.order))}"
        return "x".join(map(str, self.shape)) + f"-axis{self.axis}{order}"


# Numbers of values around and far beyond the block size, segment lengths around the limit for gathering, and
# channel counts that do not fill a register; in rows and in planes.
FORMS = [
    Form((2, 3)),
    Form((257, 65)),
    Form((3, 2048)),
    Form((130, 1)),
    Form((1, 5, 4)),
    Form((37, 3, 50)),
    Form((700, 3, 8)),
    Form((2, 3, 5000)),
    Form((3, 65, 7, 9)),
    Form((2, 2048, 2, 1)),
    Form((5, 3, 2, 11, 13)),
    Form((2, 9, 11, 65), axis=-1),
    Form((2, 70, 3), axis=-1),
    Form((4, 5, 6, 7), order=(0, 2, 3, 1)),  # channels last, as in torch
    Form((4, 5, 6, 7), order=(3, 0, 2, 1)),
    Form((5, 300, 4), axis=0),  # the slowest axis, with the values of a channel contiguous
    Form((1, 65)),
]
# One form for each path through the kernels, for tests with many other parameters.
FEW = [Form((300, 65)), Form((33, 3, 300)), Form((600, 2, 13)), Form((2, 3, 6000))]


@dataclass(frozen=True)
class Case:
    """Options of a forward pass, and the arrays passed to it."""

    id: str
    options: dict[str, Any] = field(default_factory=dict)
    affine: str = "gamma beta"
    running: bool = True
    residual: bool = False

    def __str__(self) -> str:
        return self.id

    @property
    def relu(self) -> bool:
        return self.options.get("activation") == "relu"

    @property
    def training(self) -> bool:
        return self.options.get("training", True)


RELU = {"activation": "relu"}
EVAL = {"training": False}
CASES = [
    Case("plain", affine="", running=False),
    Case("gamma", affine="gamma", running=False),
    Case("beta", affine="beta"),
    Case("affine"),
    Case("eps", {"eps": 0.5}),
    Case("relu", RELU),
    Case("residual", residual=True),
    Case("residual-relu", RELU, residual=True),
    Case("eval", EVAL),
    Case("eval-plain", EVAL, affine=""),
    Case("eval-relu", EVAL | RELU),
    Case("eval-residual", EVAL, residual=True),
    Case("eval-residual-relu", EVAL | RELU, residual=True),
]
BY_ID = {case.id: case for case in CASES}


@dataclass
class Batch:
    """All arrays that can be passed to a call."""

    x: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray
    running_mean: np.ndarray
    running_var: np.ndarray
    residual: np.ndarray
    dy: np.ndarray
    form: Form

    def given(self, case: Case) -> dict[str, Any]:
        """The arguments of ``case``, except x."""
        names = case.affine.split() + ["running_mean", "running_var"] * case.running
        names += ["residual"] * case.residual
        given = {name: getattr(self, name) for name in names}
        return given | {"axis": self.form.axis} | case.options

    def run(self, case: Case, **more: Any) -> tuple[Any, Any, Any]:
        """Run both passes. Returns ``y``, the saved values and the gradients."""
        y, saved = F.batch_norm_forward(self.x, **(self.given(case) | more))
        return y, saved, F.batch_norm_backward(self.dy, saved)


def batch(form: Form, dtype: Any = "float32", small: Any = None, mean: float = 0.5) -> Batch:
    """A batch of normal values. ``small`` is the dtype of the per-channel arrays."""
    rng = np.random.default_rng(form.shape)
    dtype = DTYPES.get(dtype, dtype)
    small = dtype if small is None else DTYPES.get(small, small)
    one_each = [1] * len(form.shape)
    one_each[form.axis] = form.channels
    spread = rng.uniform(0.5, 2.0, one_each)

    def whole(middle: float) -> np.ndarray:
        values = middle + spread * rng.standard_normal(form.shape)
        return form.place(values.astype(dtype))

    def each(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, form.channels).astype(small)

    x, residual, dy = whole(mean), whole(0.0), whole(0.1)
    return Batch(x, each(0.5, 2), each(-1, 1), each(-1, 1), each(0.5, 2), residual, dy, form)


def result_image(b: Batch, y: Any, saved: Any, grads: Any) -> str:
    """A digest of all results of a call and of the arrays that it changes."""
    stats = [saved.mean, saved.var, saved.invstd, b.running_mean, b.running_var]
    return image([y], stats, [g for g in grads if g is not None])
