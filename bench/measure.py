"""Timing: competitors take turns in one process, and what counts is the ratio within a turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Call = Callable[[], object]

FEWEST, MOST = 5, 400  # rounds that a competitor takes part in
TURN = 1e-3  # seconds: a shorter call is repeated in its turn
PAUSE = 2e-3  # before each turn, in which the threads of the one before go to sleep
WARMED = 10e-3  # a call as short as this may find its arrays in a cache


class Quartiles(NamedTuple):
    low: float
    median: float
    high: float

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a share of the median."""
        return (self.high - self.low) / 2 / self.median


def quartiles(values: np.ndarray) -> Quartiles:
    return Quartiles(*map(float, np.nanpercentile(values, [25, 50, 75])))


@dataclass
class Timing:
    """Seconds a call, one figure for each round; NaN where it did not take part."""

    rounds: np.ndarray

    @property
    def seconds(self) -> Quartiles:
        return quartiles(self.rounds)

    def ratio_to(self, other: Timing) -> Quartiles:
        """Over the rounds, this time by the other's in the same round."""
        return quartiles(self.rounds / other.rounds)


@dataclass
class _Turn:
    """How a competitor takes its turn."""

    call: Call
    repeats: int
    before: Call | None

    def __call__(self) -> float:
        time.sleep(PAUSE)
        if self.before is not None:
            self.before()
        start = time.perf_counter()
        for _ in range(self.repeats):
            self.call()
        return (time.perf_counter() - start) / self.repeats


def interleave(
    calls: dict[str, Call], *, seconds: float, always: set[str], evict: Call | None = None
) -> dict[str, Timing]:
    """Time the calls in turn, each round in another order, for about so many seconds in all.

    Those in ``always`` take part in every round, the others in as many as their share of the time
    allows, but in five at least; so a slow one does not eat up the time of all. A first round is
    dropped.

    Warm, a short call is made once before its turn and then repeated until a millisecond is over. With
    ``evict``, that is called before every single call instead, and throws everything out of the caches.
    """
    turns, cost = {}, {}
    for name, call in calls.items():
        first = _Turn(call, 1, evict)()
        repeats = 1 if evict else max(1, int(TURN / max(first, 1e-7)))
        turns[name] = _Turn(call, repeats, evict or (call if first < WARMED else None))
        cost[name] = (
            PAUSE + first * (repeats + (first < WARMED)) + (_Turn(evict, 1, None)() if evict else 0)
        )
    share = seconds / len(calls)
    taken = {name: int(np.clip(share / cost[name], FEWEST, MOST)) for name in calls}
    count = max(FEWEST, min(taken[name] for name in always))
    rounds = {name: np.full(count, np.nan) for name in calls}
    order = list(calls)
    for r in range(-1, count):
        order = order[1:] + order[:1]
        for name in order:
            part = count if name in always else min(taken[name], count)
            if r < 0 or (r + 1) * part // count > r * part // count:
                rounds[name][r] = turns[name]()  # the round before the first is overwritten by the last
    return {name: Timing(times) for name, times in rounds.items()}
