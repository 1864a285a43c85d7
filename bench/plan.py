"""What a run measures: the cases that the arguments choose, and the competitors that take part."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from types import ModuleType

from rich.console import Console

from bench import device, run
from bench.case import Case
from bench.tasks import OURS, competitors, has_prefix


def cases(args: argparse.Namespace, all_tasks: dict[str, ModuleType]) -> Iterator[Case]:
    if not args.task:
        for task in all_tasks.values():
            for case in task.suite(args.quick, args.device):
                yield _on_device(case, args)
        return
    task = all_tasks[args.task]
    workloads = args.workload or task.WORKLOADS[:1]
    for dtype, what, workload in product(args.dtype, args.what or task.DEFAULT, workloads):
        for size in args.size if workload == "array" else args.size[:1]:
            yield _on_device(task.CASE(what, workload, size, dtype, cold=args.cold), args)


def _on_device(case: Case, args: argparse.Namespace) -> Case:
    case = replace(case, device=args.device, as_cuda_graph=args.replay)
    return replace(case, cold=case.cold or device.num_buffer_sets(case) > 1)


def available_competitors(
    task: ModuleType, peers: list[str] | None, console: Console
) -> dict[str, ModuleType]:
    """Return fastopt's module and those of the requested peers that are available. The others are printed."""
    requested = {
        name: module
        for name, module in competitors(task).items()
        if name == OURS or peers is None or has_prefix(name, peers)
    }
    missing = [name for name, module in requested.items() if not module.available()]
    if missing:
        name = task.__name__.removeprefix("bench.")
        reason = "not in this build" if OURS in missing else "not installed, or no device"
        console.print(
            f"{name}: left out, {reason}: {', '.join(missing)}", style="yellow", highlight=False
        )
    return {name: module for name, module in requested.items() if name not in missing}


@dataclass(frozen=True)
class Plan:
    """The cases to measure, and the available competitors of each task."""

    timed: list[Case]
    memory: list[Case]
    competitors: dict[str, dict[str, ModuleType]]


def plan(args: argparse.Namespace, all_tasks: dict[str, ModuleType], console: Console) -> Plan:
    requested = list(
        dict.fromkeys(cases(args, all_tasks))
    )  # a case that was named twice is measured once
    modules = {
        name: available_competitors(task, args.peers, console)
        for name, task in all_tasks.items()
        if any(case.task == name for case in requested)
    }
    requested = [case for case in requested if OURS in modules[case.task]]
    if too_large := [case.name for case in requested if not run.fits(case)]:
        console.print(f"left out, too large for this machine: {', '.join(too_large)}", style="yellow")
    requested = [case for case in requested if case.name not in too_large]
    if not requested:
        console.print("nothing to measure", style="red")
        sys.exit(2)
    return Plan(
        timed=[] if args.memory else requested,
        memory=[case for case in requested if args.memory or case.measure_memory],
        competitors=modules,
    )
