"""One case: make the competitors, check them, time them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from types import ModuleType

import psutil

from bench import device
from bench.case import Case, Contestant, WrongError
from bench.measure import Call, Turn, interleave
from bench.record import LIMIT, Entry, Row
from bench.tasks import OURS, taking_part


def fits(case: Case) -> bool:
    """Is there memory for one more competitor's arrays and temporaries?"""
    there = psutil.virtual_memory().available if case.device == "cpu" else device.free()
    return there > 3 * case.working_set * device.sets(case)


def enter(
    case: Case, competitors: dict[str, ModuleType]
) -> tuple[dict[str, Contestant], dict[str, str]]:
    """Everyone who can do the case and does it right, and why the others are left out. It is an error
    if fastopt cannot or is wrong."""
    made: dict[str, Contestant] = {}
    left_out: dict[str, str] = {}
    for name, module in taking_part(case, competitors).items():
        if not fits(case):
            left_out[name] = "no memory left"
            continue
        try:
            contestants = [module.make(case) for _ in range(device.sets(case))]
            if contestants[0] is None:
                continue
            case.check(contestants[0])
            one = rotating(contestants)
            made[name] = device.replayed(one, len(contestants)) if case.replayed else one
        except Exception as trouble:
            if name == OURS:
                raise
            left_out[name] = _why(trouble)
    return made, left_out


def _why(trouble: Exception) -> str:
    if isinstance(trouble, WrongError):
        return f"wrong: {trouble}"
    first = next(iter(str(trouble).splitlines()), "")
    return f"cannot: {type(trouble).__name__}: {first}"


def rotating(sets: list[Contestant]) -> Contestant:
    """One whose every call goes to the next set of arrays."""
    if len(sets) == 1:
        return sets[0]
    first = sets[0]
    return replace(
        first,
        run=_in_turn([one.run for one in sets]),
        limit=first.limit and _in_turn([one.limit for one in sets]),
        wait=first.wait and (lambda: [one.wait() for one in sets]),
    )


def _in_turn(calls: list[Call]) -> Callable[[], object]:
    following = cycle(calls).__next__
    return lambda: following()()


def measure(
    case: Case, task: ModuleType, competitors: dict[str, ModuleType], seconds: float, evict: Call
) -> Row:
    made, left_out = enter(case, competitors)
    if case.device == "cpu":
        task.release()  # a device's cases share what was drawn
    turn = Turn if case.device == "cpu" else device.Turn
    evict = evict if case.cold else None
    turns = {LIMIT: turn(made[OURS].limit, evict, calls=made[OURS].calls)}
    turns |= {name: turn(one.run, evict, one.wait, one.calls) for name, one in made.items()}
    times = interleave(turns, seconds=seconds, always={LIMIT, OURS})
    entries = {
        name: Entry(t.seconds, t.ratio_to(times[LIMIT]), t.ratio_to(times[OURS]))
        for name, t in times.items()
    }
    return Row.of(case, entries, left_out)
