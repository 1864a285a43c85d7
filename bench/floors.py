"""Two floors for each kernel on a device, from its machine code: bytes over bandwidth, operations over rate.

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

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench import machine
from bench.cubin import PTX, Compiled, compiled, output, tool
from bench.passes import Pass, Work, works
from bench.pipes import ISSUE, clocks, turns
from bench.workloads import RESNET50_ACTIVATIONS, elements


@dataclass(frozen=True)
class Device:
    """As one was seen, not as promised: a copy's bytes a second, read and written; the clock under load."""

    name: str
    copy: float
    clock: float = 1.98e9
    processors: int = 132


DEVICES = (Device("H100", 3.0e12), Device("H200", 4.3e12))
LATENCY = 1e-6  # seconds; assumed of a memory under load, and not measured
# Of a multiprocessor of 9.0: the guide's table of technical specifications.
REGISTERS, THREADS, BLOCKS, SHARED = 65536, 2048, 32, 228 << 10


# ---- the floors ----


@dataclass(frozen=True)
class Floor:
    """What a pass asks of a multiprocessor."""

    of: Pass
    turns: Counter[str]  # of a thread, on its way
    registers: int
    shared: int
    subroutines: int  # calls that are not on the way

    @classmethod
    def found(cls, of: Pass, among: Iterable[Compiled]) -> Floor:
        (own,) = (c for c in among if re.search(of.kernel, c.kernel.name))
        calls = sum(one.opcode.startswith("CALL") for one in own.kernel.code)
        return cls(of, turns(own.kernel.way(of.needs, of.never)), own.registers, own.shared, calls)

    @cached_property
    def clocks(self) -> dict[str, float]:
        """Of a multiprocessor for an element, by pipe."""
        return {pipe: n / self.of.elements for pipe, n in clocks(self.turns).items()}

    @property
    def busiest(self) -> str:
        return max(self.clocks, key=self.clocks.__getitem__)

    @property
    def issued(self) -> float:
        return self.turns[ISSUE] / self.of.elements

    @property
    def moved(self) -> int:
        return self.of.reads + self.of.writes

    @property
    def warps(self) -> int:
        """Resident on a multiprocessor. Registers are given out eight a thread."""
        of_registers = REGISTERS // (-(-self.registers // 8) * 8 * self.of.threads)
        of_shared = SHARED // (self.shared + 1024)  # one KiB is the system's
        blocks = min(BLOCKS, THREADS // self.of.threads, of_registers, of_shared)
        return blocks * self.of.threads // 32

    def in_flight(self, warps: float) -> float:
        """Bytes that so many warps of a multiprocessor can have asked for and not got."""
        return min(warps, self.warps) * 32 * self.of.elements * self.of.reads

    def wanted(self, device: Device) -> float:
        """Little's law: bytes that must be in flight for the reads of a copy's speed."""
        return device.copy / device.processors * LATENCY * self.of.reads / self.moved

    def bytes_time(self, device: Device) -> float:
        """Seconds an element."""
        return self.moved / device.copy

    def operations_time(self, device: Device) -> float:
        return self.clocks[self.busiest] / (device.clock * device.processors)

    def time(self, device: Device, size: float = math.inf) -> float:
        """Of an element of so many; a sum over few has too few threads to keep a memory busy."""
        warps = size / self.of.values / 32 / device.processors if self.of.values else math.inf
        starved = max(1.0, self.wanted(device) / self.in_flight(warps))
        return max(self.bytes_time(device) * starved, self.operations_time(device))


def share(floors: Iterable[Floor], device: Device, size: float = math.inf) -> float:
    """Of a copy's speed, that passes one after the other can reach."""
    floors = list(floors)
    return sum(f.bytes_time(device) for f in floors) / sum(f.time(device, size) for f in floors)


def floors_of(arch: str, ptx: str = PTX) -> list[tuple[Work, list[Floor]]]:
    known = works()
    files = {one.file for work in known for one in work.passes}
    found = {file: compiled(file, arch, ptx) for file in sorted(files)}
    return [(work, [Floor.found(one, found[one.file]) for one in work.passes]) for work in known]


# ---- tables ----

HEADERS = (
    *("work", "pass", "bytes", "instructions", "busiest pipe, of the bytes' time", "calls apart"),
    *("registers", "warps", "KiB in flight, wanted", "target"),
    *(f"of a copy on an {device.name}" for device in DEVICES),
)


def rows(found: list[tuple[Work, list[Floor]]]) -> list[tuple[str, ...]]:
    """A line for each pass; what goes for the whole work stands in the first."""
    lines = []
    fast = DEVICES[-1]  # where operations have the least time
    for work, floors in found:
        whole = [f"{work.target:.0%}", *(f"{share(floors, device):.0%}" for device in DEVICES)]
        for i, f in enumerate(floors):
            taken = f.operations_time(fast) / f.bytes_time(fast)
            lines.append(
                (
                    *(work.name if i == 0 else "", f.of.file, str(f.moved), f"{f.issued:.1f}"),
                    *(f"{f.busiest} {taken:.0%}", str(f.subroutines), str(f.registers), str(f.warps)),
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
    """BatchNorm of one shape: the share of a copy's speed, launches left out, and what each of them beyond a
    copy's one may cost for the target to be reached."""
    lines = []
    for work, floors in found:
        for name in ("stem", "stage1") if work.name.startswith("BatchNorm") else ():
            n = elements([RESNET50_ACTIVATIONS[name]])
            cells = []
            for device in DEVICES:
                least = n * sum(f.bytes_time(device) for f in floors)
                spare = least / work.target - n * sum(f.time(device, n) for f in floors)
                cells.append(f"{share(floors, device, n):.0%}")
                cells.append(f"{1e6 * spare / (work.launches - 1):.1f}")
            lines.append((f"{work.name}, {name}", *cells))
    return lines


def show(
    title: str, headers: Iterable[str], lines: Iterable[tuple[str, ...]], console: Console
) -> None:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i, header in enumerate(headers):
        table.add_column(header, justify="right" if i > 1 else "left")
    for line in lines:
        table.add_row(*line)
    console.print(table)


def markdown(headers: Iterable[str], lines: Iterable[tuple[str, ...]]) -> str:
    headers = tuple(headers)
    return "\n".join(
        "| " + " | ".join(line) + " |" for line in (headers, ("---",) * len(headers), *lines)
    )


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
                    "clocks": f.clocks,
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
    parser.add_argument("--arch", default="90", help="whose machine code, as 90")
    parser.add_argument("--ptx", default=PTX, help=f"from whose PTX; {PTX} as the shipped build has it")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    args = parser.parse_args()
    if missing := [name for name in ("nvcc", "nvdisasm") if not tool(name)]:
        parser.error(f"there is no {' and no '.join(missing)} on the path")
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
