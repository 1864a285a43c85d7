"""Timing: competitors take turns in one process, and ratios are taken within a round."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

Call = Callable[[], object]

MIN_ROUNDS, MAX_ROUNDS = 5, 400  # per competitor
PAUSE_S = 2e-3  # before each turn, so that the threads of the previous competitor fall asleep
# The duration of the warm-up calls before a turn. A waking thread may be placed on the CPU of the thread that
# waits for it, and the scheduler takes some milliseconds to separate them: without a warm-up, a call of 20 µs
# took up to 2 ms.
WARMUP_S = 5e-3
MAX_WARMED_CALL_S = 50e-3  # a longer call has no warm-up


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
    """Seconds per call, one value for each round; NaN if the competitor did not take part."""

    rounds: np.ndarray

    @property
    def seconds(self) -> Quartiles:
        return quartiles(self.rounds)

    def ratio_to(self, other: Timing) -> Quartiles:
        """Return the quartiles over the rounds of this time divided by the other's in the same round."""
        return quartiles(self.rounds / other.rounds)


@dataclass
class Turn:
    """A competitor's turn, which returns the seconds per run.

    A short call is repeated for some milliseconds as a warm-up and then until a millisecond has passed. With
    ``evict`` there are no repetitions: it is called before every call and fills the caches with other data."""

    MIN_TURN_S: ClassVar[float] = 1e-3  # a shorter call is repeated in its turn

    call: Call
    evict: Call | None
    wait: Call | None = None  # for libraries whose calls only queue work
    calls: int = 1  # the number of calls that one run of `call` makes
    repeats: int = 1
    warm: bool = True

    def call_and_wait(self) -> None:
        self.call()
        if self.wait is not None:
            self.wait()

    def __call__(self) -> float:
        time.sleep(PAUSE_S)
        if self.evict is not None:
            self.evict()
        elif self.warm:
            end = time.perf_counter() + WARMUP_S
            self.call_and_wait()
            while time.perf_counter() < end:
                self.call_and_wait()
        start = time.perf_counter()
        for _ in range(self.repeats):
            self.call_and_wait()
        return (time.perf_counter() - start) / self.repeats

    def prepare(self) -> float:
        """Set the number of repeats. Returns the seconds that a whole turn takes."""
        begin = time.perf_counter()
        first = self()
        overhead = time.perf_counter() - begin - first
        self.warm = first < MAX_WARMED_CALL_S
        if self.evict is None:
            self.repeats = max(1, int(self.MIN_TURN_S / max(first, 1e-7)))
        return overhead * (self.warm or self.evict is not None) + first * self.repeats


def interleave(
    turns: Mapping[str, Turn], *, seconds: float, every_round: set[str]
) -> dict[str, Timing]:
    """Time all turns in rounds, each in another order, for about ``seconds`` in total.

    Those in ``every_round`` take part in every round. The others take part in as many rounds as their share
    of the time allows, but in at least five, so that a slow competitor does not use up the time of all. The
    first round is dropped.
    """
    share = seconds / len(turns)
    taken = {
        name: int(np.clip(share / turn.prepare(), MIN_ROUNDS, MAX_ROUNDS))
        for name, turn in turns.items()
    }
    count = min(taken[name] for name in every_round)
    rounds = {name: np.full(count, np.nan) for name in turns}
    order = list(turns)
    for r in range(-1, count):
        order = order[1:] + order[:1]
        for name in order:
            part = count if name in every_round else min(taken[name], count)
            if r < 0 or (r + 1) * part // count > r * part // count:
                # Round -1, the dropped one, is overwritten by the last round.
                rounds[name][r] = turns[name]() / turns[name].calls
    return {name: Timing(times) for name, times in rounds.items()}
