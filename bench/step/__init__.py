"""One optimizer step over a list of arrays.

A competitor is a module here with ``NAME``, ``available()`` and ``make(case)``, which gives a
:class:`~bench.case.Contestant`, or ``None`` if it cannot do the case. ``clip`` asks the same
competitors for a global-norm clip before the step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import numpy as np

from bench.case import Case, Contestant, compare, dtype_of, epsilon, sample
from bench.reference import reference
from bench.workloads import LISTS, Shapes


class Rule(NamedTuple):
    states: tuple[str, ...]
    flops: int  # an element, as the formula is written; a root and a division count as one


RULES = {
    "sgd": Rule((), 2),
    "momentum": Rule(("velocity",), 4),
    "nesterov": Rule(("velocity",), 6),
    "adagrad": Rule(("sum_sq",), 7),
    "rmsprop": Rule(("mean_sq",), 9),
    "adam": Rule(("m", "v"), 13),
    "adamw": Rule(("m", "v"), 14),
}
LR = 1e-2
WEIGHT_DECAY = 1e-2  # of adamw
CHECKED_STEPS = 3

# Who stands for all in a whole run: the fastest, where a step moves gigabytes; the best of each library,
# and what is plain.
FUSED = ("torch fused", "torch graph", "fastopt", "numba", "CuPy")
FASTEST = (*FUSED, "optax", "NumPy")
FASTER = (*FASTEST, "torch")

WHAT = tuple(RULES)
DEFAULT = WHAT
WORKLOADS = tuple(LISTS)
COMPETITORS = __name__
SMALL = {"workload": "array", "size": 4096}


@dataclass(frozen=True)
class StepCase(Case):
    task = "step"
    clip: ClassVar[bool] = False

    @property
    def rule(self) -> str:
        return self.what

    @property
    def max_norm(self) -> float:
        """Of clip: some 0.4 of what the gradients have, so that they stay numbers that float16 can
        square."""
        return 0.5 * self.elements**0.5

    @property
    def states(self) -> int:
        return len(RULES[self.rule].states)

    @property
    def shapes(self) -> Shapes:
        return LISTS[self.workload](self.size)

    @property
    def bytes(self) -> int:
        """The least that must move: parameter and state twice, the gradient once, and once more for its
        norm."""
        return self.numpy_dtype.itemsize * self.elements * (3 + 2 * self.states + self.clip)

    @property
    def flops(self) -> int:
        return self.elements * (RULES[self.rule].flops + 3 * self.clip)

    @property
    def working_set(self) -> int:
        """Parameters, gradients and state."""
        return self.numpy_dtype.itemsize * self.elements * (2 + self.states)

    def arrays(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """A competitor's own parameters and gradients, of the same values for all and never zero."""
        params, grads = self.drawn()
        if self.device != "cpu":
            return params, grads  # which are copied when they are put there
        return [p.copy() for p in params], [g.copy() for g in grads]

    def drawn(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Only to be read; the same for every rule."""
        return _drawn(self.workload, self.size, self.dtype)

    def expected(self, conventions: dict) -> list[np.ndarray]:
        """Sampled parameters after the checked steps, in float64 from the papers' lines."""
        params, grads = self.drawn()
        scale = _clip(self) if self.clip else 1.0
        ws, gs = [sample(p) for p in params], [sample(g) * scale for g in grads]
        states = [{name: np.zeros_like(w) for name in RULES[self.rule].states} for w in ws]
        rule, decay = ("adam", WEIGHT_DECAY) if self.rule == "adamw" else (self.rule, 0.0)
        for t in range(1, CHECKED_STEPS + 1):
            ws = reference.step(rule, ws, gs, states, t, lr=LR, weight_decay=decay, **conventions)
        return ws

    def check(self, contestant: Contestant) -> None:
        """Take the checked steps and compare. Each may round the parameter once. The way it has come is
        a few roundings off, and more where someone takes 1 - 0.999 or the norm of all gradients in
        float32, or clips again what was clipped before."""
        before = [sample(p) for p in self.drawn()[0]]
        for _ in range(CHECKED_STEPS):
            contestant.run()
        eps = epsilon(self.numpy_dtype)
        of_way = 32 * eps + (1e-4 if self.dtype != "float64" else 1e-5 if self.clip else 0.0)
        wanted = self.expected(contestant.conventions)
        for old, got, want in zip(before, contestant.results(), wanted, strict=True):
            stored = CHECKED_STEPS * eps * np.maximum(np.abs(old), np.abs(want))
            compare(sample(got), want, stored + of_way * np.abs(want - old))


@lru_cache(maxsize=1)
def _drawn(workload: str, size: int, dtype: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of either sign and in [0.25, 2): squares are normal numbers in float16 too."""
    rng = np.random.default_rng(0)

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        values = rng.random(shape, np.float32)
        values *= 3.5
        values -= 1.75
        values += np.copysign(np.float32(0.25), values)
        return values.astype(dtype_of(dtype), copy=False)

    shapes = LISTS[workload](size)
    return [draw(s) for s in shapes], [draw(s) for s in shapes]


@lru_cache(maxsize=1)
def _clip(case: StepCase) -> float:
    """What a gradient is multiplied with."""
    size = reference.norm([g.astype(np.float64) for g in case.drawn()[1]])
    return reference.clip_coefficient(size, case.max_norm, 1e-6)


def release() -> None:
    """Let the drawn arrays go."""
    _drawn.cache_clear()


CASE = StepCase


#: Elements of the one array that stands for a large network, of a whole run and of a quick one.
LARGE = {"cpu": (2**24, 2**22), "cuda": (2**28, 2**26)}


def suite(quick: bool, device: str) -> Iterator[StepCase]:
    """What a whole run measures. All competitors take part where they are not too slow for its five
    minutes, in Adam and with few parameters; the others stand for them elsewhere."""
    size = LARGE[device][quick]
    yield StepCase("adam", "array", size, section="every rule", weighed=not quick)
    for rule in RULES:
        if rule != "adam":
            yield StepCase(rule, "array", size, section="every rule", peers=FASTER)
    for dtype in ("float16", "bfloat16", "float64"):
        yield StepCase("adam", "array", 2**20 if quick else 2**22, dtype, section="every dtype")
    people = "what people train"
    yield StepCase("momentum", "mlp", section=people)
    yield StepCase("adam", "mlp", section=people)
    if not quick:
        yield StepCase("adam", "mlp", cold=True, section=people)
        yield StepCase("adam", "resnet50", section=people, peers=FASTER)
        for name in ("embedding", "gpt2"):
            yield StepCase("adam", name, section=people, peers=FUSED)
    for power in (10, 14, 18) if quick else (*range(10, 26, 2), 27):
        peers = FUSED if power > 24 else FASTEST
        yield StepCase("adam", "array", 2**power, section="growth", peers=peers)
