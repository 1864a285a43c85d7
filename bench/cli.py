"""The command line: its arguments, and what is done with the figures."""

from __future__ import annotations

import argparse
from types import ModuleType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import fastopt
from bench import arguments, device, machine, memory, run
from bench.case import DTYPES, installed
from bench.plan import plan
from bench.record import Record, pairs, slower
from bench.report import count, show
from bench.tasks import OURS, competitors, has_prefix, tasks
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
    add(
        "--plot",
        type=arguments.folder,
        metavar="DIR",
        help="draw plots into this folder: a growth curve of three or more sizes of an array, bars for other "
        "workloads, and the roofline of the float32 cases; needs matplotlib",
    )


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
    if args.plot and not installed("matplotlib"):
        parser.error("--plot needs matplotlib: pip install '.[bench]'")
    if args.threads < 0:
        parser.error(f"--threads must be >= 0, got {args.threads}")
    if args.task:
        _check_names(parser, "what", args.what, all_tasks[args.task].WHAT)
        _check_names(parser, "--workload", args.workload or [], all_tasks[args.task].WORKLOADS)
    elif given := [f"--{name}" for name in TASK_ONLY_FLAGS if getattr(args, name)]:
        parser.error(f"{given[0]} requires a task; the full suite has its own settings")
    measured = [all_tasks[args.task]] if args.task else all_tasks.values()
    known = sorted({name for task in measured for name in competitors(task)} - {OURS})
    for prefix in args.peers or []:
        if not any(has_prefix(name, [prefix]) for name in (OURS, *known)):
            parser.error(
                f"--peers: no competitor's name begins with {prefix!r} (choose from {', '.join(known)})"
            )


def _check_names(
    parser: argparse.ArgumentParser, name: str, given: list[str], known: tuple[str, ...]
) -> None:
    for value in given:
        if value not in known:
            parser.error(f"{name}: invalid choice: {value!r} (choose from {', '.join(known)})")


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
