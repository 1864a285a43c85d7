"""Memory: the peak of a step beyond parameters, gradients and state. Each competitor runs in a separate
process."""

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
from bench.tasks import competitors, select_competitors, tasks

CASE_FIELDS = ("what", "workload", "size", "dtype", "device")  # for the process that measures the case
ROOT = Path(__file__).parents[1]


def measure(case: Case, modules: dict[str, ModuleType]) -> Memory:
    """Measure all competitors. On the host two processes run at a time, because memory does not depend on
    speed."""
    names = list(select_competitors(case, modules))
    with ThreadPoolExecutor(2 if case.device == "cpu" else 1) as pool:
        sizes = list(pool.map(partial(_measure_in_process, case), names))
    extra = {name: size for name, size in zip(names, sizes, strict=True) if size is not None}
    return Memory(case.name, case.working_set, extra)


def _measure_in_process(case: Case, name: str) -> int | None:
    fields = {field: getattr(case, field) for field in CASE_FIELDS}
    command = [sys.executable, "-m", "bench.memory", json.dumps([case.task, name, fields])]
    done = subprocess.run(command, cwd=ROOT, env=_env(), capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _env() -> dict[str, str]:
    """Fix the size from which glibc maps an allocation, and so returns it when it is freed. By default this
    size adapts to what was freed."""
    return {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}


class OnHost:
    """The memory of the process, and its peak since the last mark."""

    def now(self) -> int:
        return _status("VmRSS")

    def mark(self) -> None:
        ctypes.CDLL(None).malloc_trim(0)  # return what glibc still holds of the random arrays
        Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> int:
        return _status("VmHWM")


class OnDevice:
    """The memory allocated on the device. Libraries keep what a step has freed, so this is the peak of the
    step."""

    def now(self) -> int:
        return -device.available_memory()

    def mark(self) -> None:
        pass

    def peak(self) -> int:
        return -device.free_memory()


def extra(case: Case, task: ModuleType, module: ModuleType) -> int | None:
    """Return the peak, in bytes, of two steps that follow a first one, which may create the state.

    A small case runs before, so that code and the stacks of threads are already in memory."""
    small = module.make(replace(case, **task.SMALL))
    if small is None:
        return None
    for _ in range(3):
        small.finish()
    task.release()
    memory = OnHost() if case.device == "cpu" else OnDevice()
    before = memory.now()
    competitor = module.make(case)
    task.release()
    competitor.finish()
    memory.mark()
    for _ in range(2):
        competitor.finish()
    return max(0, memory.peak() - before - case.working_set)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


def _main() -> None:
    task_name, name, fields = json.loads(sys.argv[1])
    task = tasks()[task_name]
    print(json.dumps(extra(task.CASE(**fields), task, competitors(task)[name])))


if __name__ == "__main__":
    _main()
