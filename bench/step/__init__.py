"""One optimizer step over a list of arrays.

A competitor is a module here with ``NAME``, ``available()`` and ``make(case)``, which returns a
:class:`~bench.case.Competitor`, or ``None`` if it does not support the case. ``clip`` uses the same
competitors, with a clip by global norm before the step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import numpy as np

from bench.case import Case, Competitor, compare, dtype_of, epsilon, sample
from bench.reference import reference
from bench.workloads import LISTS, Shapes


class Rule(NamedTuple):
    states: tuple[str, ...]
    flops: int  # per element, as the formula is written; a square root and a division count as one each


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
#: The constants of the formulas, by the names that competitors use in theirs.
NUMBERS = {"lr": LR, "kept": 1 - LR * WEIGHT_DECAY, "eps": 1e-8}
NUMBERS |= {"b1": 0.9, "a1": 0.1, "b2": 0.999, "a2": 0.001}  # the decay rates b, and a = 1 - b

# Selections of competitors for the full suite, each a superset of the one before. The first is for steps that
# move gigabytes, the last leaves out only competitors that are slow.
FUSED = ("torch fused", "torch graph", "fastopt", "numba", "CuPy")
BEST_OF_EACH_LIBRARY = (*FUSED, "optax", "NumPy")
ALL_BUT_SLOW = (*BEST_OF_EACH_LIBRARY, "torch")

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
        """The limit of ``clip``: some 0.4 of the norm of the gradients, so that the squares of the clipped
        gradients are in the range of float16."""
        return 0.5 * self.elements**0.5

    @property
    def states(self) -> int:
        return len(RULES[self.rule].states)

    @property
    def shapes(self) -> Shapes:
        return LISTS[self.workload](self.size)

    @property
    def bytes(self) -> int:
        """The minimum traffic: parameters and state are read and written, gradients are read, and read once
        more for their norm."""
        return self.numpy_dtype.itemsize * self.elements * (3 + 2 * self.states + self.clip)

    @property
    def flops(self) -> int:
        return self.elements * (RULES[self.rule].flops + 3 * self.clip)

    @property
    def working_set(self) -> int:
        """The size of parameters, gradients and state."""
        return self.numpy_dtype.itemsize * self.elements * (2 + self.states)

    def arrays(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return new parameters and gradients for a competitor, with the same values for all and never zero."""
        params, grads = self.drawn()
        if self.device != "cpu":
            return params, grads  # they are copied to the device later
        return [p.copy() for p in params], [g.copy() for g in grads]

    def drawn(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return parameters and gradients, the same for every rule, which must not be written."""
        return _drawn(self.workload, self.size, self.dtype)

    def expected(self, conventions: dict) -> list[np.ndarray]:
        """Return the sampled parameters after the checked steps, computed in float64 by the formulas of the
        papers."""
        params, grads = self.drawn()
        scale = _clip(self) if self.clip else 1.0
        ws, gs = [sample(p) for p in params], [sample(g) * scale for g in grads]
        states = [{name: np.zeros_like(w) for name in RULES[self.rule].states} for w in ws]
        rule, decay = ("adam", WEIGHT_DECAY) if self.rule == "adamw" else (self.rule, 0.0)
        for t in range(1, CHECKED_STEPS + 1):
            ws = reference.step(rule, ws, gs, states, t, lr=LR, weight_decay=decay, **conventions)
        return ws

    def check(self, competitor: Competitor) -> None:
        """Take the checked steps and compare the parameters.

        Each step may round the parameter once. Its total change may be off by a few roundings, and by more if a
        competitor computes 1 - 0.999 or the norm of all gradients in float32, or clips gradients that were
        already clipped."""
        before = [sample(p) for p in self.drawn()[0]]
        for _ in range(CHECKED_STEPS):
            competitor.run()
        eps = epsilon(self.numpy_dtype)
        relative = 32 * eps + (1e-4 if self.dtype != "float64" else 1e-5 if self.clip else 0.0)
        wanted = self.expected(competitor.conventions)
        for old, got, want in zip(before, competitor.results(), wanted, strict=True):
            stored = CHECKED_STEPS * eps * np.maximum(np.abs(old), np.abs(want))
            compare(sample(got), want, stored + relative * np.abs(want - old))


@lru_cache(maxsize=1)
def _drawn(workload: str, size: int, dtype: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Draw numbers of either sign with magnitudes in [0.25, 2), whose squares are normal numbers even in
    float16."""
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
    """Return the factor that clips the gradients."""
    size = reference.norm([g.astype(np.float64) for g in case.drawn()[1]])
    return reference.clip_coefficient(size, case.max_norm, 1e-6)


def release() -> None:
    """Free the random arrays."""
    _drawn.cache_clear()


CASE = StepCase


#: Elements of the array that represents a large network, in the full suite and with --quick.
LARGE = {"cpu": (2**24, 2**22), "cuda": (2**28, 2**26)}


def suite(quick: bool, device: str) -> Iterator[StepCase]:
    """Yield the cases of the full suite. All competitors take part in Adam and with few parameters; elsewhere
    those are left out that would be too slow for the suite's five minutes."""
    size = LARGE[device][quick]
    yield StepCase("adam", "array", size, section="every rule", measure_memory=not quick)
    for rule in RULES:
        if rule != "adam":
            yield StepCase(rule, "array", size, section="every rule", peers=ALL_BUT_SLOW)
    for dtype in ("float16", "bfloat16", "float64"):
        yield StepCase("adam", "array", 2**20 if quick else 2**22, dtype, section="every dtype")
    people = "what people train"
    yield StepCase("momentum", "mlp", section=people)
    yield StepCase("adam", "mlp", section=people)
    if not quick:
        yield StepCase("adam", "mlp", cold=True, section=people)
        yield StepCase("adam", "resnet50", section=people, peers=ALL_BUT_SLOW)
        for name in ("embedding", "gpt2"):
            yield StepCase("adam", name, section=people, peers=FUSED)
    for power in (10, 14, 18) if quick else (*range(10, 26, 2), 27):
        peers = FUSED if power > 24 else BEST_OF_EACH_LIBRARY
        yield StepCase("adam", "array", 2**power, section="growth", peers=peers)
