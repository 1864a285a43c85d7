"""Memory: what a step takes at most beyond parameters, gradients and state, each competitor in a
process of its own."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

from bench import device
from bench.case import Case
from bench.record import Memory
from bench.tasks import competitors, taking_part, tasks

TOLD = ("what", "workload", "size", "dtype", "device")  # of a case, to the process that measures it
ROOT = Path(__file__).parents[1]


def measure(case: Case, chosen: dict[str, ModuleType]) -> Memory:
    """On the host two processes at a time: what they take does not depend on how long it takes them."""
    names = list(taking_part(case, chosen))
    with ThreadPoolExecutor(2 if case.device == "cpu" else 1) as pool:
        answers = list(pool.map(partial(_ask, case), names))
    extra = {name: taken for name, taken in zip(names, answers, strict=True) if taken is not None}
    return Memory(case.name, case.working_set, extra)


def _ask(case: Case, name: str) -> int | None:
    told = json.dumps([case.task, name, {field: getattr(case, field) for field in TOLD}])
    command = [sys.executable, "-m", "bench.memory", told]
    done = subprocess.run(command, cwd=ROOT, env=_env(), capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _env() -> dict[str, str]:
    """glibc gives back what it mapped, but maps only what is large, and what is large it learns from
    what was freed."""
    return {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}


class OnHost:
    """The process's memory, and its peak since the last mark."""

    def now(self) -> int:
        return _status("VmRSS")

    def mark(self) -> None:
        ctypes.CDLL(None).malloc_trim(0)  # what glibc holds of the drawn arrays is no competitor's
        Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> int:
        return _status("VmHWM")


class OnDevice:
    """What the device has given out. Libraries keep what a step has freed, so this is its peak."""

    def now(self) -> int:
        return -device.free()

    def mark(self) -> None:
        pass

    def peak(self) -> int:
        return -device.left()


def extra(case: Case, task: ModuleType, competitor: ModuleType) -> int | None:
    """Bytes at the peak of two steps that follow a first, which may make the state. A small case goes
    before, so that code and threads' stacks are there already."""
    small = competitor.make(replace(case, **task.SMALL))
    if small is None:
        return None
    for _ in range(3):
        small.finish()
    task.release()
    memory = OnHost() if case.device == "cpu" else OnDevice()
    before = memory.now()
    contestant = competitor.make(case)
    task.release()
    contestant.finish()
    memory.mark()
    for _ in range(2):
        contestant.finish()
    return max(0, memory.peak() - before - case.working_set)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


def _main() -> None:
    task_name, name, told = json.loads(sys.argv[1])
    task = tasks()[task_name]
    print(json.dumps(extra(task.CASE(**told), task, competitors(task)[name])))


if __name__ == "__main__":
    _main()
