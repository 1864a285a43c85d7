"""Timing: competitors take turns in one process, and what counts is the ratio within a turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

Call = Callable[[], object]

FEWEST, MOST = 5, 400  # rounds that a competitor takes part in
PAUSE = 2e-3  # before each turn, in which the threads of the one before go to sleep
# Calls before a turn. A thread that wakes may do so on the CPU of the one that waits for it, and it takes
# the scheduler some milliseconds to part them: without this a call of 20 µs took up to 2 ms.
WARMUP = 5e-3
WARMED = 50e-3  # a longer call has no warm-up


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
class Turn:
    """How a competitor takes its turn, which gives the seconds of a run: warm, a short one is made for some
    milliseconds before it and then repeated until one is over. With ``evict``, that is called before every
    single one instead, and throws everything out of the caches."""

    LONG: ClassVar[float] = 1e-3  # seconds: a shorter call is repeated in its turn

    call: Call
    evict: Call | None
    wait: Call | None = None  # of a library whose call only begins its work
    calls: int = 1  # that one run of `call` stands for
    repeats: int = 1
    warm: bool = True

    def settle(self) -> None:
        self.call()
        if self.wait is not None:
            self.wait()

    def __call__(self) -> float:
        time.sleep(PAUSE)
        if self.evict is not None:
            self.evict()
        elif self.warm:
            end = time.perf_counter() + WARMUP
            self.settle()
            while time.perf_counter() < end:
                self.settle()
        start = time.perf_counter()
        for _ in range(self.repeats):
            self.settle()
        return (time.perf_counter() - start) / self.repeats

    def prepare(self) -> float:
        """Set the number of repeats; the seconds that a turn takes in all."""
        begin = time.perf_counter()
        first = self()
        overhead = time.perf_counter() - begin - first
        self.warm = first < WARMED
        if self.evict is None:
            self.repeats = max(1, int(self.LONG / max(first, 1e-7)))
        return overhead * (self.warm or self.evict is not None) + first * self.repeats


def interleave(turns: Mapping[str, Turn], *, seconds: float, always: set[str]) -> dict[str, Timing]:
    """Time them in turn, each round in another order, for about so many seconds in all.

    Those in ``always`` take part in every round, the others in as many as their share of the time
    allows, but in five at least; so a slow one does not eat up the time of all. A first round is dropped.
    """
    share = seconds / len(turns)
    taken = {n: int(np.clip(share / turn.prepare(), FEWEST, MOST)) for n, turn in turns.items()}
    count = min(taken[name] for name in always)
    rounds = {name: np.full(count, np.nan) for name in turns}
    order = list(turns)
    for r in range(-1, count):
        order = order[1:] + order[:1]
        for name in order:
            part = count if name in always else min(taken[name], count)
            if r < 0 or (r + 1) * part // count > r * part // count:
                # The round before the first is overwritten by the last.
                rounds[name][r] = turns[name]() / turns[name].calls
    return {name: Timing(times) for name, times in rounds.items()}
