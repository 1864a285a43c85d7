"""One case: create the competitors, check their results, and time them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from types import ModuleType

import psutil

from bench import device
from bench.case import Case, Competitor, WrongError
from bench.measure import Call, Turn, interleave
from bench.record import LIMIT, Entry, Row
from bench.tasks import OURS, select_competitors


def fits(case: Case) -> bool:
    """Return whether there is enough memory for the arrays and temporaries of one more competitor."""
    on_host = case.device == "cpu"
    available = psutil.virtual_memory().available if on_host else device.available_memory()
    return available > 3 * case.working_set * device.num_buffer_sets(case)


def prepare(case: Case, modules: dict[str, ModuleType]) -> tuple[dict[str, Competitor], dict[str, str]]:
    """Create and check the competitors of a case.

    Returns those that support the case and are correct, and the reasons why others are left out. An error of
    fastopt itself is raised.
    """
    made: dict[str, Competitor] = {}
    left_out: dict[str, str] = {}
    for name, module in select_competitors(case, modules).items():
        if not fits(case):
            left_out[name] = "not enough memory"
            continue
        try:
            sets = [module.make(case) for _ in range(device.num_buffer_sets(case))]
            if sets[0] is None:
                continue
            case.check(sets[0])
            competitor = rotating(sets)
            if case.as_cuda_graph:
                competitor = device.as_cuda_graph(competitor, len(sets))
            made[name] = competitor
        except Exception as error:
            if name == OURS:
                raise
            left_out[name] = _reason(error)
    return made, left_out


def _reason(error: Exception) -> str:
    if isinstance(error, WrongError):
        return f"wrong: {error}"
    first_line = next(iter(str(error).splitlines()), "")
    return f"cannot: {type(error).__name__}: {first_line}"


def rotating(sets: list[Competitor]) -> Competitor:
    """Return a competitor that uses the next set of arrays at every call."""
    if len(sets) == 1:
        return sets[0]
    first = sets[0]
    return replace(
        first,
        run=_cycle([one.run for one in sets]),
        limit=first.limit and _cycle([one.limit for one in sets]),
        wait=first.wait and (lambda: [one.wait() for one in sets]),
    )


def _cycle(calls: list[Call]) -> Callable[[], object]:
    next_call = cycle(calls).__next__
    return lambda: next_call()()


def measure(
    case: Case, task: ModuleType, modules: dict[str, ModuleType], seconds: float, evict: Call
) -> Row:
    made, left_out = prepare(case, modules)
    if case.device == "cpu":
        task.release()  # on a device, the next cases reuse the random arrays
    turn = Turn if case.device == "cpu" else device.Turn
    evict = evict if case.cold else None
    turns = {LIMIT: turn(made[OURS].limit, evict, calls=made[OURS].calls)}
    turns |= {name: turn(one.run, evict, one.wait, one.calls) for name, one in made.items()}
    times = interleave(turns, seconds=seconds, every_round={LIMIT, OURS})
    entries = {
        name: Entry(t.seconds, t.ratio_to(times[LIMIT]), t.ratio_to(times[OURS]))
        for name, t in times.items()
    }
    return Row.of(case, entries, left_out)
