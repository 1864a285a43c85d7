"""The command line: which cases, which competitors, what to do with the figures."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from types import ModuleType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import fastopt
from bench import arguments, device, machine, memory, run
from bench.case import DTYPES, Case
from bench.record import Record, in_both, slower
from bench.report import count, show
from bench.tasks import OURS, competitors, tasks
from fastopt import _core

WIDTH = 180  # of a table that goes to no terminal


DESCRIPTION = """How far is fastopt from what the machine can do, and from what else there is? Without a task:
everything that a whole run measures."""
OF_A_TASK = ("workload", "size", "dtype", "cold", "memory")  # a whole run has its own


def parse(
    argv: list[str],
    found: dict[str, ModuleType],
    program: str = "python -m bench",
    description: str = DESCRIPTION,
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog="  ".join(f"{name}: {', '.join(task.WHAT)}." for name, task in found.items()),
    )
    add = parser.add_argument
    add("task", nargs="?", choices=list(found), help="default: all")
    add("what", nargs="*", help="what of the task; see below")
    add(
        "--workload",
        type=arguments.some_names,
        help="comma-separated; those of step: array, mlp, resnet50, ...",
    )
    add(
        "--size",
        type=arguments.sizes,
        help="of array: 1e7, 2**20 (default: 2**24), a list, or 2**10:2**27",
    )
    add("--dtype", type=arguments.dtypes, help=f"comma-separated, of {', '.join(DTYPES)}; default: f32")
    add("--cold", action="store_true", help="throw everything out of the caches before each call")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--replay", action="store_true", help="many calls as one CUDA graph: the device's time alone")
    add(
        "--peers",
        type=arguments.names,
        help="beginnings of names, comma-separated; '' for none; default: all",
    )
    add("--threads", type=int, default=0, help="for everyone; 0: as OpenMP says")
    add("--isa", choices=_core.isas_supported(), help="force an instruction set on fastopt")
    add(
        "--seconds",
        type=arguments.seconds,
        help="for each case, whose rounds may need more; default 1, 0.3 quick",
    )
    add("--quick", action="store_true", help="fewer and smaller cases: under a minute")
    add("--memory", action="store_true", help="of one task: peak memory instead of time")
    add("--json", type=arguments.new_file, metavar="FILE", help="write the figures there")
    add(
        "--compare",
        type=arguments.record,
        metavar="FILE",
        help="say what got slower since; then exit with 1, or with 2 if no case is in both",
    )
    add("--plot", type=arguments.folder, metavar="DIR", help="draw pictures there")
    args = parser.parse_intermixed_args(argv)
    _check(parser, args, found)
    args.size, args.dtype = args.size or [2**24], args.dtype or ["float32"]
    if args.seconds is None:
        args.seconds = 0.3 if args.quick else 1.0
    return args


def _check(
    parser: argparse.ArgumentParser, args: argparse.Namespace, found: dict[str, ModuleType]
) -> None:
    """What goes together."""
    if args.device == "cuda":
        if args.cold or args.plot:
            parser.error("--cold and --plot are for the CPU; on a device arrays go round")
        if trouble := device.trouble():
            parser.error(f"--device cuda: {trouble}")
    elif args.replay:
        parser.error("--replay needs --device cuda: the host has no graphs")
    if args.threads < 0:
        parser.error(f"--threads is {args.threads}, but must be 0 or more")
    if args.task:
        _known(parser, "what", args.what, found[args.task].WHAT)
        _known(parser, "--workload", args.workload or [], found[args.task].WORKLOADS)
    elif given := [f"--{name}" for name in OF_A_TASK if getattr(args, name)]:
        parser.error(f"{given[0]} needs a task; a whole run has its own")


def _known(
    parser: argparse.ArgumentParser, name: str, given: list[str], known: tuple[str, ...]
) -> None:
    for value in given:
        if value not in known:
            parser.error(f"{name}: there is no {value!r}, only {', '.join(known)}")


def cases(args: argparse.Namespace, found: dict[str, ModuleType]) -> Iterator[Case]:
    if not args.task:
        for task in found.values():
            for case in task.suite(args.quick, args.device):
                yield _there(case, args)
        return
    task = found[args.task]
    workloads = args.workload or task.WORKLOADS[:1]
    for dtype, what, workload in product(args.dtype, args.what or task.DEFAULT, workloads):
        for size in args.size if workload == "array" else args.size[:1]:
            yield _there(task.CASE(what, workload, size, dtype, cold=args.cold), args)


def _there(case: Case, args: argparse.Namespace) -> Case:
    case = replace(case, device=args.device, replayed=args.replay)
    return replace(case, cold=case.cold or device.sets(case) > 1)


def choose(task: ModuleType, peers: list[str] | None, console: Console) -> dict[str, ModuleType]:
    """fastopt and those peers that are asked for and can be had; the others are named."""
    everyone = competitors(task)
    asked = {
        name: module
        for name, module in everyone.items()
        if name == OURS or peers is None or name.lower().startswith(tuple(p.lower() for p in peers))
    }
    missing = [name for name, module in asked.items() if not module.available()]
    if missing:
        name = task.__name__.removeprefix("bench.")
        why = "not in this build" if OURS in missing else "not installed, or no device"
        console.print(f"{name}: left out, {why}: {', '.join(missing)}", style="yellow", highlight=False)
    return {name: module for name, module in asked.items() if name not in missing}


def main(argv: list[str], threads: int) -> int:
    """``threads`` is what :func:`bench.threads.confine` has come to."""
    found = tasks()
    args = parse(argv, found)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    record = measure(args, found, threads, console)
    show(record, console)
    if args.json:
        record.write(args.json)
    if args.plot:
        from bench.plot import draw

        for path in draw(record, args.plot):
            console.print(f"drawn: {path}")
    return compare(args.compare, record, console) if args.compare else 0


def measure(
    args: argparse.Namespace, found: dict[str, ModuleType], threads: int, console: Console
) -> Record:
    _core.select_isa(args.isa or _core.isa())
    fastopt.set_num_threads(threads)
    record = Record(machine.describe(threads, _core.isa()))
    if args.device == "cuda":
        record.machine |= device.describe()
    console.print(_heading(record.machine), highlight=False)
    wanted = list(cases(args, found))
    chosen = {
        name: choose(task, args.peers, console)
        for name, task in found.items()
        if any(case.task == name for case in wanted)
    }
    wanted = [case for case in wanted if OURS in chosen[case.task]]
    if too_large := [case.name for case in wanted if not run.fits(case)]:
        console.print(f"left out, too large for this machine: {', '.join(too_large)}", style="yellow")
    wanted = [case for case in wanted if case.name not in too_large]
    evict = machine.eviction(record.machine["caches"])
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        weighed = [case for case in wanted if args.memory or case.weighed]
        bar = progress.add_task("", total=len(weighed) + len(wanted) * (not args.memory))
        for case in [] if args.memory else wanted:
            progress.update(bar, description=case.name)
            task = found[case.task]
            record.rows.append(run.measure(case, task, chosen[case.task], args.seconds, evict))
            if args.json:
                record.write(args.json)  # a run that is cut off leaves what it has measured
            progress.advance(bar)
        for case in weighed:
            progress.update(bar, description=f"memory of {case.name}")
            record.memory.append(memory.measure(case, chosen[case.task]))
            progress.advance(bar)
    return record


def _heading(told: dict) -> str:
    levels = ", ".join(f"{name} {size >> 10:,} KiB" for name, size in told["caches"].items())
    threads = count(told["threads"], "thread")
    where = f"{told['cpu']}, {threads}, {told['isa']}"
    if "gpu" in told:
        where = f"{told['gpu']}, copies at {told['copy_bandwidth'] / 1e9:,.0f} GB/s; {where}"
    return f"{where}; {levels}; commit {told['commit']}"


def compare(old: Record, new: Record, console: Console) -> int:
    for name in ("cpu", "threads", "isa", "gpu"):
        was, now = (record.machine.get(name, "none") for record in (old, new))
        if was != now:
            console.print(f"{name} was {was}, is {now}", style="yellow")
    if not in_both(old, new):
        console.print("nothing can be compared: no case is in both", style="red")
        return 2
    sentences = slower(old, new)
    for sentence in sentences:
        console.print(sentence, style="red", highlight=False)
    if not sentences:
        console.print("nothing got slower beyond the noise")
    return 1 if sentences else 0
