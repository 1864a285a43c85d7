"""``python -m bench``: see ``bench/README.md``."""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import fastopt
from bench import step, workloads
from bench.measure import Timing, interleave
from bench.step import Case, numpy_, ours, torch_
from fastopt import _core

COMPETITORS = (ours, torch_, numpy_)
LIMIT = "limit"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("rules", nargs="*", help=f"of {', '.join(step.SLOTS)}; default: all")
    parser.add_argument("--workload", choices=workloads.NAMES, default="array")
    parser.add_argument("--size", type=float, default=2**24, help="elements of the one array")
    parser.add_argument("--clip", action="store_true", help="clip by global norm first")
    parser.add_argument("--peers", default="torch,NumPy", help="comma-separated; '' for none")
    parser.add_argument("--threads", type=int, default=0, help="0: as OpenMP says")
    parser.add_argument("--isa", help="force an instruction set")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each row")
    args = parser.parse_args()
    unknown = set(args.rules) - set(step.SLOTS)
    if unknown:
        parser.error(f"no such rule: {', '.join(sorted(unknown))}")
    args.rules = args.rules or list(step.SLOTS)
    return args


def contestants(case: Case, peers: set[str]) -> dict[str, step.Contestant]:
    """Everyone who can do the case, checked: after three steps all must be where NumPy's formulas lead."""
    plain = numpy_.make(case)
    chosen = [c for c in COMPETITORS if c is ours or c.NAME in peers]
    made = {c.NAME: c.make(case) if c is not numpy_ else plain for c in chosen if c.available()}
    for contestant in [plain, *(c for c in made.values() if c is not plain)]:
        for _ in range(3):
            contestant.step()
    for name, contestant in made.items():
        for a, b in zip(contestant.params(), plain.params(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=f"{name}, {case.rule}")
    return made


def row(case: Case, times: dict[str, Timing], peers: list[str]) -> list[str]:
    mine = times[ours.NAME]
    cells = [
        case.rule + (" + clip" if case.clip else ""),
        f"{mine.median * 1e6:,.1f}",
        f"{mine.spread:.0%}",
        f"{case.bytes / mine.median / 1e9:.1f}",
        f"{1 / mine.ratio_to(times[LIMIT]):.1%}",
    ]
    return cells + [f"{times[p].ratio_to(mine):.2f}x" if p in times else "-" for p in peers]


def main() -> None:
    args = parse()
    console = Console()
    _core.select_isa(args.isa or _core.isa())
    fastopt.set_num_threads(args.threads)
    shapes = workloads.workload(args.workload, int(args.size))
    cases = [Case(rule, shapes, args.clip) for rule in args.rules]
    peers = [p for p in args.peers.split(",") if p]
    table = Table(
        title=f"{args.workload}: {len(shapes)} arrays, {cases[0].elements:,} float32, "
        f"{fastopt.get_num_threads()} threads, {_core.isa()}"
    )
    headers = ["step", "us", "+-", "GB/s", "of limit", *(f"{p} / fastopt" for p in peers)]
    for header in headers:
        table.add_column(header, justify="left" if header == "step" else "right")
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("measuring", total=len(cases))
        for case in cases:
            made = contestants(case, set(peers))
            calls = {LIMIT: made[ours.NAME].limit, **{n: c.step for n, c in made.items()}}
            times = interleave(calls, seconds=args.seconds)
            table.add_row(*row(case, times, peers))
            progress.advance(task)
    console.print(table)


main()
