"""One case: make the competitors, check them, time them."""

from __future__ import annotations

from types import ModuleType

import psutil

from bench.case import Case, Contestant, WrongError
from bench.measure import Call, interleave
from bench.record import LIMIT, Entry, Row
from bench.tasks import OURS, taking_part


def fits(case: Case) -> bool:
    """Is there memory for one more competitor's arrays and temporaries?"""
    return psutil.virtual_memory().available > 3 * case.working_set


def enter(
    case: Case, competitors: dict[str, ModuleType]
) -> tuple[dict[str, Contestant], dict[str, str]]:
    """Everyone who can do the case and does it right, and why the others are left out. It is an error
    if fastopt is wrong."""
    made: dict[str, Contestant] = {}
    left_out: dict[str, str] = {}
    for name, module in taking_part(case, competitors).items():
        if not fits(case):
            left_out[name] = "no memory left"
            continue
        contestant = module.make(case)
        if contestant is None:
            continue
        try:
            case.check(contestant)
        except WrongError as wrong:
            if name == OURS:
                raise
            left_out[name] = f"wrong: {wrong}"
            continue
        made[name] = contestant
    return made, left_out


def measure(
    case: Case, task: ModuleType, competitors: dict[str, ModuleType], seconds: float, evict: Call
) -> Row:
    made, left_out = enter(case, competitors)
    task.release()
    calls = {LIMIT: made[OURS].limit, **{name: c.run for name, c in made.items()}}
    times = interleave(calls, seconds=seconds, always={LIMIT, OURS}, evict=evict if case.cold else None)
    entries = {
        name: Entry(t.seconds, t.ratio_to(times[LIMIT]), t.ratio_to(times[OURS]))
        for name, t in times.items()
    }
    return Row.of(case, entries, left_out)
