"""Compare versions of the CUDA engine in one process, in turns and as graphs. This shows differences that are
smaller than those between two runs.

    python -m bench.engines old=old.so new=new.so batchnorm forward --workload stage1-nchw --dtype f32,bf16
    python -m bench.engines old=old.so new=new.so step adam --size 2**28 --seconds 2
    python -m bench.engines as-is=new.so plain=new.so+plain step adam --workload resnet50

A version is a library with ``fastopt_cuda_backend``, such as the ``_cuda`` of any build whose ``Backend`` has
the same layout as this one's. The name ``_cuda`` means the installed one. With ``+plain``, its kernels do not
overlap and its blocks do not form clusters. The versions are followed by the arguments of ``python -m
bench``. The results of every version are checked first.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench import cli, device
from bench.case import Case
from bench.measure import Timing, interleave
from bench.plan import cases
from bench.record import LIMIT
from bench.reference import load_test_module
from bench.run import rotating
from bench.tasks import OURS, competitors, tasks
from fastopt import _core

PROGRAM = "python -m bench.engines NAME=LIBRARY ..."
DESCRIPTION = (
    "Compare versions of the CUDA engine. They are followed by the arguments of python -m bench."
)


@dataclass(frozen=True)
class Engine:
    """A version, and whether its kernels are launched without overlap and clusters."""

    library: ctypes.CDLL
    plain: bool = False

    @classmethod
    def named(cls, text: str) -> Engine:
        path = text.removesuffix("+plain")
        plain = path != text
        if path == "_cuda":
            from fastopt import _cuda

            path = _cuda.__file__
        return cls(ctypes.CDLL(path), plain)

    def use(self) -> None:
        devices = load_test_module("devices")
        devices.launch_plainly(self.library, self.plain)
        _core.use_cuda(devices.capsule(self.library))


def race(case: Case, ours: Any, engines: Mapping[str, Engine], seconds: float) -> dict[str, Timing]:
    """Time the versions and a copy. A graph keeps the kernels with which it was captured, and their order."""
    turns = {}
    for name, engine in engines.items():
        engine.use()
        sets = [ours.make(case) for _ in range(device.num_buffer_sets(case))]
        case.check(sets[0])
        one = device.as_cuda_graph(rotating(sets), len(sets))
        turns.setdefault(LIMIT, device.Turn(one.limit, None, calls=one.calls))
        turns[name] = device.Turn(one.run, None, one.wait, one.calls)
    return interleave(turns, seconds=seconds, every_round=set(turns))


def line(case: Case, times: Mapping[str, Timing], first: str) -> str:
    """Format the time of a copy, and the time of each version with its ratio to the first version's."""
    parts = [f"copy {1e6 * times[LIMIT].seconds.median:.1f} us"]
    for name, time in times.items():
        if name != LIMIT:
            ratio = time.ratio_to(times[first])
            us = 1e6 * time.seconds.median
            parts.append(f"{name} {us:.1f} us ({ratio.median:.3f} ±{ratio.spread:.1%})")
    return f"{case.name}: {', '.join(parts)}"


def main(argv: list[str]) -> int:
    versions = [a for a in argv if "=" in a and not a.startswith("-")]
    libraries = dict(a.split("=", 1) for a in versions)
    if not libraries and not {"-h", "--help"} & set(argv):
        print("bench.engines: expected at least one version, such as new=new.so", file=sys.stderr)
        return 2
    all_tasks = tasks()
    rest = [a for a in argv if a not in versions] + ["--device", "cuda", "--replay"]
    args = cli.parse(rest, all_tasks, PROGRAM, DESCRIPTION)
    engines = {name: Engine.named(path) for name, path in libraries.items()}
    for case in cases(args, all_tasks):
        ours = competitors(all_tasks[case.task])[OURS]
        print(line(case, race(case, ours, engines, args.seconds), next(iter(engines))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
