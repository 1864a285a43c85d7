"""Lower bounds of the time of each kernel, from its machine code: bytes over bandwidth, operations over rate.

    python -m bench.floors [--arch 90] [--ptx 80] [--json FILE] [--markdown FILE]

Needs nvcc and nvdisasm (the toolkit's, or nvidia-cuda-nvdisasm from PyPI), and no GPU."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.console import Console

from bench import machine
from bench.cubin import PTX, Compiled, compiled, output, tool
from bench.passes import Pass, Work, works
from bench.pipes import ISSUE, cycles, issue_counts
from bench.tables import markdown, terminal_table
from bench.workloads import RESNET50_ACTIVATIONS, elements


@dataclass(frozen=True)
class Device:
    """Measured values, not those of a data sheet: a copy's bytes per second, read and written, and the clock
    under load."""

    name: str
    copy: float
    clock: float = 1.98e9
    processors: int = 132


DEVICES = (Device("H100", 3.0e12), Device("H200", 4.3e12))
LATENCY = 1e-6  # seconds; assumed for a memory under load, not measured
# Limits of a multiprocessor of compute capability 9.0, from the guide's table of technical specifications.
REGISTERS, THREADS, BLOCKS, SHARED = 65536, 2048, 32, 228 << 10


# ---- the floors ----


@dataclass(frozen=True)
class Floor:
    """The resources of a multiprocessor that a pass uses."""

    of: Pass
    issue_counts: Counter[str]  # of a thread, on its path
    registers: int
    shared: int
    subroutines: int  # number of calls, which are not on the path

    @classmethod
    def find(cls, of: Pass, kernels: Iterable[Compiled]) -> Floor:
        (own,) = (c for c in kernels if re.search(of.kernel, c.kernel.name))
        calls = sum(one.opcode.startswith("CALL") for one in own.kernel.code)
        counts = issue_counts(own.kernel.path(of.required, of.forbidden))
        return cls(of, counts, own.registers, own.shared, calls)

    @cached_property
    def cycles(self) -> dict[str, float]:
        """Clock cycles of a multiprocessor per element, by pipe."""
        return {pipe: n / self.of.elements for pipe, n in cycles(self.issue_counts).items()}

    @property
    def busiest(self) -> str:
        return max(self.cycles, key=self.cycles.__getitem__)

    @property
    def issued(self) -> float:
        """Instructions per element."""
        return self.issue_counts[ISSUE] / self.of.elements

    @property
    def moved(self) -> int:
        return self.of.reads + self.of.writes

    @property
    def warps(self) -> int:
        """Resident warps of a multiprocessor. Registers are allocated in units of eight per thread."""
        by_registers = REGISTERS // (-(-self.registers // 8) * 8 * self.of.threads)
        by_shared = SHARED // (self.shared + 1024)  # the system reserves one KiB per block
        blocks = min(BLOCKS, THREADS // self.of.threads, by_registers, by_shared)
        return blocks * self.of.threads // 32

    def in_flight(self, warps: float) -> float:
        """Return the bytes that ``warps`` warps of a multiprocessor can have requested but not received."""
        return min(warps, self.warps) * 32 * self.of.elements * self.of.reads

    def wanted(self, device: Device) -> float:
        """Return the bytes that must be in flight for reads at a copy's speed (Little's law)."""
        return device.copy / device.processors * LATENCY * self.of.reads / self.moved

    def bytes_time(self, device: Device) -> float:
        """Return the time of moving the bytes of an element, in seconds."""
        return self.moved / device.copy

    def operations_time(self, device: Device) -> float:
        """Return the time of the busiest pipe per element, in seconds."""
        return self.cycles[self.busiest] / (device.clock * device.processors)

    def time(self, device: Device, size: float = math.inf) -> float:
        """Return the time per element, of ``size`` elements; a sum over few has too few threads to keep the
        memory busy."""
        warps = size / self.of.values / 32 / device.processors if self.of.values else math.inf
        starved = max(1.0, self.wanted(device) / self.in_flight(warps))
        return max(self.bytes_time(device) * starved, self.operations_time(device))


def share(floors: Iterable[Floor], device: Device, size: float = math.inf) -> float:
    """Return the share of a copy's speed that consecutive passes can reach."""
    floors = list(floors)
    return sum(f.bytes_time(device) for f in floors) / sum(f.time(device, size) for f in floors)


def floors_of(arch: str, ptx: str = PTX) -> list[tuple[Work, list[Floor]]]:
    files = {one.file for work in works() for one in work.passes}
    kernels = {file: compiled(file, arch, ptx) for file in sorted(files)}
    return [(work, [Floor.find(one, kernels[one.file]) for one in work.passes]) for work in works()]


# ---- tables ----

HEADERS = (
    *("work", "pass", "bytes", "instructions", "busiest pipe, of the bytes' time", "calls apart"),
    *("registers", "warps", "KiB in flight, wanted", "target"),
    *(f"of a copy on an {device.name}" for device in DEVICES),
)


def rows(found: list[tuple[Work, list[Floor]]]) -> list[tuple[str, ...]]:
    """Return a row for each pass. The first row of a work contains what holds for the whole work."""
    lines = []
    fast = DEVICES[-1]  # the fastest memory, which leaves the least time for operations
    for work, floors in found:
        whole = [f"{work.target:.0%}", *(f"{share(floors, device):.0%}" for device in DEVICES)]
        for i, f in enumerate(floors):
            busy = f.operations_time(fast) / f.bytes_time(fast)
            lines.append(
                (
                    *(work.name if i == 0 else "", f.of.file, str(f.moved), f"{f.issued:.1f}"),
                    *(f"{f.busiest} {busy:.0%}", str(f.subroutines), str(f.registers), str(f.warps)),
                    f"{f.in_flight(math.inf) / 1024:.0f}, {f.wanted(fast) / 1024:.0f}",
                    *(whole if i == 0 else [""] * len(whole)),
                )
            )
    return lines


SHAPE_HEADERS = (
    "work",
    *(f"{what} on an {device.name}" for device in DEVICES for what in ("of a copy", "us a launch")),
)


def shape_rows(found: list[tuple[Work, list[Floor]]]) -> list[tuple[str, ...]]:
    """Return rows for BatchNorm at one shape: the share of a copy's speed without launches, and the time that
    each launch beyond the one of a copy may take before the target is missed."""
    lines = []
    for work, floors in found:
        for name in ("stem", "stage1") if work.name.startswith("BatchNorm") else ():
            n = elements([RESNET50_ACTIVATIONS[name]])
            cells = []
            for device in DEVICES:
                copy_time = n * sum(f.bytes_time(device) for f in floors)
                spare = copy_time / work.target - n * sum(f.time(device, n) for f in floors)
                cells.append(f"{share(floors, device, n):.0%}")
                cells.append(f"{1e6 * spare / (work.launches - 1):.1f}")
            lines.append((f"{work.name}, {name}", *cells))
    return lines


def show(
    title: str, headers: Iterable[str], lines: Iterable[tuple[str, ...]], console: Console
) -> None:
    table = terminal_table(title)
    for i, header in enumerate(headers):
        table.add_column(header, justify="right" if i > 1 else "left")
    for line in lines:
        table.add_row(*line)
    console.print(table)


def as_json(found: list[tuple[Work, list[Floor]]]) -> list[dict]:
    return [
        {
            "work": work.name,
            "target": work.target,
            "launches": work.launches,
            "shares": {device.name: share(floors, device) for device in DEVICES},
            "passes": [
                {
                    "file": f.of.file,
                    "reads": f.of.reads,
                    "writes": f.of.writes,
                    "clocks": f.cycles,
                    "registers": f.registers,
                    "warps": f.warps,
                    "in_flight": f.in_flight(math.inf),
                }
                for f in floors
            ],
        }
        for work, floors in found
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.floors", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--arch", default="90", help="architecture of the machine code (default: 90)")
    parser.add_argument(
        "--ptx", default=PTX, help=f"PTX version it is made from (shipped build: {PTX})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to this file")
    args = parser.parse_args()
    if missing := [name for name in ("nvcc", "nvdisasm") if not tool(name)]:
        parser.error(f"not found on the path: {', '.join(missing)}")
    found = floors_of(args.arch, args.ptx)
    version = re.findall(r"V([\d.]+)", output("nvcc", "--version"))[0]
    about = f"sm_{args.arch} from compute_{args.ptx}, nvcc {version}, commit {machine.commit()}"
    tables = (
        ("Floors of an element", HEADERS, rows(found)),
        ("Floors of a shape", SHAPE_HEADERS, shape_rows(found)),
    )
    console = Console()
    console = Console(width=None if console.is_terminal else 200)
    for title, headers, lines in tables:
        show(f"{title}: {about}", headers, lines, console)
    if args.json:
        args.json.write_text(json.dumps({"about": about, "works": as_json(found)}, indent=1) + "\n")
    if args.markdown:
        parts = (f"## {title}\n\n{markdown(headers, lines)}\n" for title, headers, lines in tables)
        args.markdown.write_text("\n".join((f"# {about}\n", *parts)))


if __name__ == "__main__":
    main()
