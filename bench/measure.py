"""Timing: competitors take turns in one process, and what counts is the ratio within a turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Call = Callable[[], object]


@dataclass
class Timing:
    """Seconds a call, one figure for each round."""

    rounds: np.ndarray

    @property
    def median(self) -> float:
        return float(np.median(self.rounds))

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a share of the median."""
        low, high = np.percentile(self.rounds, [25, 75])
        return float((high - low) / 2 / self.median)

    def ratio_to(self, other: Timing) -> float:
        """The median over the rounds of this time by the other's in the same round."""
        return float(np.median(self.rounds / other.rounds))


def _seconds(call: Call, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def interleave(
    calls: dict[str, Call], *, seconds: float, progress: Callable[[], object] = lambda: None
) -> dict[str, Timing]:
    """Time the calls in turn, each round in another order, for about so many seconds.

    A call that takes less than a millisecond is repeated in its turn, warm; the first two rounds are
    dropped. At least nine rounds are kept.
    """
    first = {name: max(_seconds(call, 1), 1e-7) for name, call in calls.items()}
    first = {name: max(_seconds(call, 1), 1e-7) for name, call in calls.items()}
    repeats = {name: max(1, int(1e-3 / t)) for name, t in first.items()}
    round_time = sum(first[name] * repeats[name] for name in calls)
    count = int(np.clip(seconds / round_time, 9, 400)) + 2
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for _ in range(count):
        order = order[1:] + order[:1]
        for name in order:
            times[name].append(_seconds(calls[name], repeats[name]))
        progress()
    return {name: Timing(np.array(t[2:])) for name, t in times.items()}
