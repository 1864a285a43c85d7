"""The command line: it chooses the cases and competitors, and what is done with the figures."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from types import ModuleType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import fastopt
from bench import arguments, device, machine, memory, run
from bench.case import DTYPES, Case
from bench.record import Record, pairs, slower
from bench.report import count, show
from bench.tasks import OURS, competitors, tasks
from fastopt import _core

WIDTH = 180  # of a table that is not printed to a terminal

DESCRIPTION = """Compare fastopt with the limit of the machine and with other libraries. Without a task, the
full suite is measured."""
TASK_ONLY_FLAGS = ("workload", "size", "dtype", "cold", "memory")  # the full suite has its own settings


def parse(
    argv: list[str],
    all_tasks: dict[str, ModuleType],
    program: str = "python -m bench",
    description: str = DESCRIPTION,
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog="Parts of the tasks: "
        + " ".join(f"{name}: {', '.join(task.WHAT)}." for name, task in all_tasks.items()),
    )
    parser.add_argument("task", nargs="?", choices=list(all_tasks), help="default: the full suite")
    parser.add_argument("what", nargs="*", help="parts of the task to measure, listed below")
    _add_case_arguments(parser)
    _add_run_arguments(parser)
    args = parser.parse_intermixed_args(argv)
    _check(parser, args, all_tasks)
    args.size, args.dtype = args.size or [2**24], args.dtype or ["float32"]
    if args.seconds is None:
        args.seconds = 0.3 if args.quick else 1.0
    return args


def _add_case_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that choose the cases."""
    add = parser.add_argument
    add(
        "--workload",
        type=arguments.some_names,
        help="comma-separated names; for step: array, mlp, resnet50, ...",
    )
    add(
        "--size",
        type=arguments.sizes,
        help="of the workload array: 1e7, 2**20 (default: 2**24), a list, or a range 2**10:2**27",
    )
    add("--dtype", type=arguments.dtypes, help=f"comma-separated, of {', '.join(DTYPES)}; default: f32")
    add("--cold", action="store_true", help="fill the caches with other data before each call")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    add(
        "--replay",
        action="store_true",
        help="capture many calls as one CUDA graph, which times the device alone",
    )
    add("--quick", action="store_true", help="fewer and smaller cases, in less than a minute")


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that decide how the cases are measured, and what is done with the figures."""
    add = parser.add_argument
    add(
        "--peers",
        type=arguments.names,
        help="prefixes of the competitors' names, comma-separated; '' for none; default: all",
    )
    add(
        "--threads",
        type=int,
        default=0,
        help="number of threads of all libraries; 0: as OpenMP decides",
    )
    add("--isa", choices=_core.isas_supported(), help="instruction set of fastopt")
    add(
        "--seconds",
        type=arguments.seconds,
        help="time per case, which slow cases exceed; default: 1, with --quick 0.3",
    )
    add("--memory", action="store_true", help="measure the peak memory of a task instead of its time")
    add("--json", type=arguments.new_file, metavar="FILE", help="write the record to this file")
    add(
        "--compare",
        type=arguments.record,
        metavar="FILE",
        help="report what became slower since this record; then the exit status is 1, "
        "or 2 if no case is in both",
    )
    add("--plot", type=arguments.folder, metavar="DIR", help="draw plots into this folder")


def _check(
    parser: argparse.ArgumentParser, args: argparse.Namespace, all_tasks: dict[str, ModuleType]
) -> None:
    """Report invalid combinations of arguments."""
    if args.device == "cuda":
        if args.cold or args.plot:
            parser.error("--cold and --plot are for the CPU; on a device, cases rotate through arrays")
        if reason := device.unavailable_reason():
            parser.error(f"--device cuda: {reason}")
    elif args.replay:
        parser.error("--replay requires --device cuda")
    if args.threads < 0:
        parser.error(f"--threads must be >= 0, got {args.threads}")
    if args.task:
        _check_names(parser, "what", args.what, all_tasks[args.task].WHAT)
        _check_names(parser, "--workload", args.workload or [], all_tasks[args.task].WORKLOADS)
    elif given := [f"--{name}" for name in TASK_ONLY_FLAGS if getattr(args, name)]:
        parser.error(f"{given[0]} requires a task; the full suite has its own settings")


def _check_names(
    parser: argparse.ArgumentParser, name: str, given: list[str], known: tuple[str, ...]
) -> None:
    for value in given:
        if value not in known:
            parser.error(f"{name}: invalid choice: {value!r} (choose from {', '.join(known)})")


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
        if name == OURS or peers is None or name.lower().startswith(tuple(p.lower() for p in peers))
    }
    missing = [name for name, module in requested.items() if not module.available()]
    if missing:
        name = task.__name__.removeprefix("bench.")
        reason = "not in this build" if OURS in missing else "not installed, or no device"
        console.print(
            f"{name}: left out, {reason}: {', '.join(missing)}", style="yellow", highlight=False
        )
    return {name: module for name, module in requested.items() if name not in missing}


def main(argv: list[str], threads: int) -> int:
    """Run the command. ``threads`` is the result of :func:`bench.threads.confine`."""
    all_tasks = tasks()
    args = parse(argv, all_tasks)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    record = measure(args, all_tasks, threads, console)
    show(record, console)
    if args.json:
        record.write(args.json)
    if args.plot:
        from bench.plot import draw

        for path in draw(record, args.plot):
            console.print(f"plot: {path}")
    return compare(args.compare, record, console) if args.compare else 0


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
    return Plan(
        timed=[] if args.memory else requested,
        memory=[case for case in requested if args.memory or case.measure_memory],
        competitors=modules,
    )


def measure(
    args: argparse.Namespace, all_tasks: dict[str, ModuleType], threads: int, console: Console
) -> Record:
    _core.select_isa(args.isa or _core.isa())
    fastopt.set_num_threads(threads)
    record = Record(machine.describe(threads, _core.isa()))
    if args.device == "cuda":
        record.machine |= device.describe()
    console.print(_heading(record.machine), highlight=False)
    planned = plan(args, all_tasks, console)
    evict = machine.eviction(record.machine["caches"])
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(planned.timed) + len(planned.memory))
        for case in planned.timed:
            progress.update(bar, description=case.name)
            task, modules = all_tasks[case.task], planned.competitors[case.task]
            record.rows.append(run.measure(case, task, modules, args.seconds, evict))
            if args.json:
                record.write(args.json)  # an interrupted run leaves what it has measured
            progress.advance(bar)
        for case in planned.memory:
            progress.update(bar, description=f"memory of {case.name}")
            record.memory.append(memory.measure(case, planned.competitors[case.task]))
            progress.advance(bar)
    return record


def _heading(about: dict) -> str:
    levels = ", ".join(f"{name} {size >> 10:,} KiB" for name, size in about["caches"].items())
    threads = count(about["threads"], "thread")
    where = f"{about['cpu']}, {threads}, {about['isa']}"
    if "gpu" in about:
        where = f"{about['gpu']}, copies at {about['copy_bandwidth'] / 1e9:,.0f} GB/s; {where}"
    return f"{where}; {levels}; commit {about['commit']}"


def compare(old: Record, new: Record, console: Console) -> int:
    """Print what became slower. Returns the exit status."""
    for name in ("cpu", "threads", "isa", "gpu"):
        before, after = (record.machine.get(name, "none") for record in (old, new))
        if before != after:
            console.print(f"{name} was {before}, is {after}", style="yellow")
    if not pairs(old, new):
        console.print("nothing to compare: no case is in both records", style="red")
        return 2
    sentences = slower(old, new)
    for sentence in sentences:
        console.print(sentence, style="red", highlight=False)
    if not sentences:
        console.print("no case became slower by more than the noise")
    return 1 if sentences else 0
