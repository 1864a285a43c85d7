"""BatchNorm over ResNet-50's activations in both layouts, over other planes, and over rows.

The parts are training forward and backward, evaluation, and the end of a residual block, forward and
backward: ReLU of BatchNorm plus residual.

A competitor is a module here with ``NAME``, ``available()`` and ``make(case)``, which returns a
:class:`~bench.case.Competitor`, or ``None`` if it does not support the case. Its results are ``y`` and both
running statistics (forward), ``y`` (evaluate), ``dx``, ``dgamma`` and ``dbeta`` (backward), or ``y``, these
three and ``dresidual`` (block)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bench.batchnorm._formulas import backward, evaluate, forward
from bench.case import Case, Competitor, compare, epsilon, sample
from bench.device import l2
from bench.workloads import RESNET50_ACTIVATIONS, Shape, Shapes

MOMENTUM, EPS = 0.1, 1e-5
# Accesses per element: forward reads x for its statistics and again for y, backward reads x and dy for both
# sums and again for dx, and a block also accesses the residual and its gradient.
MOVED = {"forward": 3, "evaluate": 2, "backward": 5, "block": 10}
# The accesses of these that a device reads again from its L2, if the array fits in half of it.
REREAD = {"forward": 1, "evaluate": 0, "backward": 2, "block": 2}
# Operations per element.
FLOPS = {"forward": 7, "evaluate": 3, "backward": 10, "block": 21}
ARRAYS = {"forward": 2, "evaluate": 2, "backward": 3, "block": 6}
SMALL_ACTIVATIONS: dict[str, Shape] = {"mlp": (256, 1024), "tiny": (32, 64)}
#: Planes that end within a cache line, and short planes: of images of odd size, of ResNet-50's last stage in
#: a large batch, and of the last stages of ResNet-18 and VGG-16 on CIFAR-10's images.
PLANES: dict[str, Shape] = {
    "odd": (64, 64, 57, 57),
    "batch": (256, 512, 7, 7),
    "resnet18": (256, 512, 4, 4),
    "vgg16": (256, 512, 2, 2),
}
#: Rows of few channels: the columns of a table, hidden units, and the colors of a batch of images.
ROWS: dict[str, Shape] = {"table": (100_000, 10), "units": (20_000, 50), "pixels": (32 * 224 * 224, 3)}

WHAT = tuple(MOVED)
DEFAULT = WHAT
WORKLOADS = (
    *(f"{name}-{layout}" for layout in ("nchw", "nhwc") for name in RESNET50_ACTIVATIONS),
    *(f"{name}-nchw" for name in PLANES),
    *(f"{name}-nc" for name in (*SMALL_ACTIVATIONS, *ROWS)),
)
COMPETITORS = __name__
SMALL = {"workload": "stage4-nchw"}


@dataclass(frozen=True)
class BatchNormCase(Case):
    task = "batchnorm"

    @property
    def shape(self) -> Shape:
        name, _, layout = self.workload.partition("-")
        if layout == "nc":
            return (SMALL_ACTIVATIONS | ROWS)[name]
        n, c, h, w = (RESNET50_ACTIVATIONS | PLANES)[name]
        return (n, c, h, w) if layout == "nchw" else (n, h, w, c)

    @property
    def shapes(self) -> Shapes:
        return [self.shape]

    @property
    def axis(self) -> int:
        """The axis of the channels."""
        return 3 if self.workload.endswith("nhwc") else 1

    @property
    def others(self) -> tuple[int, ...]:
        return tuple(i for i in range(len(self.shape)) if i != self.axis)

    @property
    def channels(self) -> int:
        return self.shape[self.axis]

    def spread(self, per_channel: np.ndarray) -> np.ndarray:
        """Reshape a value per channel so that it broadcasts over ``x``."""
        return per_channel.reshape([-1 if i == self.axis else 1 for i in range(len(self.shape))])

    @property
    def param_dtype(self) -> np.dtype:
        """The dtype of gamma, beta and the running statistics, which is float32 for 16-bit activations."""
        return np.dtype("float64" if self.dtype == "float64" else "float32")

    @property
    def bytes(self) -> int:
        array = self.numpy_dtype.itemsize * self.elements
        reread = REREAD[self.what]
        once = self.device == "cuda" and reread * array <= l2() / 2
        return array * (MOVED[self.what] - reread * once)

    @property
    def flops(self) -> int:
        return self.elements * FLOPS[self.what]

    @property
    def working_set(self) -> int:
        return self.numpy_dtype.itemsize * self.elements * ARRAYS[self.what]

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return ``x``, ``dy``, ``gamma`` and ``beta``, which must not be written."""
        return _drawn(self)

    def residual(self) -> np.ndarray:
        """Return the residual of a block, which must not be written: ``dy`` reversed along its first axis."""
        return np.ascontiguousarray(_drawn(self)[1][::-1])

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Return a new running mean and variance."""
        return np.zeros(self.channels, self.param_dtype), np.ones(self.channels, self.param_dtype)

    def check(self, competitor: Competitor) -> None:
        """Compare the results of one call with the formulas in float64.

        Stored values are rounded once. Computed values may be off by a few roundings, relative to the sizes
        of the terms that are added; those of a peer by some hundred, because it sums 100,000 float32 values
        in float32."""
        competitor.run()
        roundings = 64 if competitor.limit else 1024  # only fastopt has a limit
        stored, computed = epsilon(self.numpy_dtype), epsilon(self.param_dtype)
        for got, (want, size) in zip(competitor.results(), _expected(self), strict=True):
            compare(sample(got), want, stored * np.abs(want) + roundings * computed * size)

    def expected(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the expected results, each with the size of the terms that it is the sum of."""
        x, dy, gamma, beta = (a.astype(np.float64) for a in _drawn(self))
        mean, var = x.mean(self.others), x.var(self.others)
        of_x = np.broadcast_to(1 + np.abs(self.spread(mean)), x.shape)
        if self.what == "evaluate":
            y = evaluate(np, x, gamma, beta, 0.0 * mean, 1 + 0.0 * var, self.spread, EPS)
            return [(y, of_x)]
        y, mean, inv = forward(np, x, gamma, beta, self.others, self.spread, EPS)
        passed, size = dy, of_x
        if self.what == "block":
            y += self.residual()
            # Where rounding may decide whether ReLU passes the gradient, any result is allowed.
            size = np.where(
                np.abs(y) < 64 * epsilon(self.param_dtype) * (of_x + np.abs(y)), np.inf, of_x
            )
            passed, y = dy * (y > 0), np.maximum(y, 0)
        if self.what == "forward":
            n = x.size / self.channels
            running = MOMENTUM * mean, 1 - MOMENTUM + MOMENTUM * var * n / (n - 1)
            return [(y, of_x), (running[0], 1 + np.abs(mean)), (running[1], 1 + var)]
        dx, dgamma, dbeta = backward(np, x, passed, gamma, mean, inv, self.others, self.spread)
        sums = np.abs(dy).sum(self.others)
        grads = [(dx, size + np.abs(dy)), (dgamma, 4 * sums), (dbeta, sums)]
        return [(y, of_x), *grads, (passed, size)] if self.what == "block" else grads


@lru_cache(maxsize=1)
def _drawn(case: BatchNormCase) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(case.shape, np.float32) for _ in range(2))
    x += 1  # not centered at zero, as after the ReLU of a preceding layer
    gamma, beta = rng.uniform(0.5, 1.5, case.channels), rng.standard_normal(case.channels)
    wide = case.param_dtype
    return (
        x.astype(case.numpy_dtype),
        dy.astype(case.numpy_dtype),
        gamma.astype(wide),
        beta.astype(wide),
    )


@lru_cache(maxsize=1)
def _expected(case: BatchNormCase) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the expected values that are compared, which are the same for every competitor."""
    return [(sample(want), sample(size)) for want, size in case.expected()]


def release() -> None:
    """Free the random arrays."""
    _drawn.cache_clear()


CASE = BatchNormCase


def suite(quick: bool, device: str) -> Iterator[BatchNormCase]:
    for layout in ("nchw", "nhwc"):
        for name in ("stage1", "stage4") if quick else ("stem", "stage1", "stage4"):
            for what in ("forward", "backward"):
                yield BatchNormCase(what, f"{name}-{layout}", section=layout)
        for what in ("evaluate", "block"):
            yield BatchNormCase(what, f"stage1-{layout}", section=layout)
    for layout in ("nchw", "nhwc") if device == "cuda" else () if quick else ("nchw",):
        for what in ("forward", "backward"):
            yield BatchNormCase(what, f"stage1-{layout}", dtype="bfloat16", section="bfloat16")
    if not quick:
        for name in PLANES if device == "cpu" else ():
            for what in ("forward", "backward"):
                yield BatchNormCase(what, f"{name}-nchw", section="planes")
        for name in ROWS if device == "cpu" else ():
            for what in ("forward", "backward"):
                yield BatchNormCase(what, f"{name}-nc", section="rows")
        for name in SMALL_ACTIVATIONS:
            for what in WHAT:
                yield BatchNormCase(what, f"{name}-nc", section="small")
