"""Machine code as printed by nvdisasm: the kernels of a file, and the path of a warp through a kernel.

A kernel that handles many cases has branches, and the code does not show which path is the usual one. The
path sought is therefore the shortest one that contains the loads, stores and products of a given case: around
a loop or, if no loop contains them, from the first instruction to the last. It enters no subroutine: a
division and a square root have one each, for operands that are denormal or out of range."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

_SECTION = re.compile(r"^\s*\.section\s+\.text\.(\w+),.*\n", re.MULTILINE)
_LINE = re.compile(
    r"^\.(?P<label>L_x_\d+):|/\*[0-9a-f]{4,}\*/\s+(?:@(?P<guard>\S+)\s+)?(?P<text>[A-Z][^;]*?)\s*;",
    re.MULTILINE,
)
_BRANCH = re.compile(r"BRA\S* (?P<operand>.*)`\(\.(?P<label>L_x_\d+)\)")


@dataclass(frozen=True)
class Instruction:
    guard: str  # its predicate, or an empty string
    text: str  # the rest

    @property
    def opcode(self) -> str:
        return self.text.split(maxsplit=1)[0]


@dataclass(frozen=True)
class Block:
    """A basic block: consecutive instructions, entered at the first and left after the last."""

    code: tuple[Instruction, ...]
    next: tuple[int, ...]  # indices of the blocks that may follow


@dataclass(frozen=True)
class Kernel:
    name: str  # mangled
    blocks: tuple[Block, ...]

    @property
    def code(self) -> list[Instruction]:
        return [one for block in self.blocks for one in block.code]

    def path(self, required: Mapping[str, int], forbidden: str = "CALL") -> list[Instruction]:
        """Return the shortest path with at least ``required[pattern]`` instructions of each pattern, which
        enters no block with an instruction that matches ``forbidden``."""
        loops: dict[int, set[int]] = defaultdict(set)  # first block -> blocks that jump back to it
        for i, block in enumerate(self.blocks):
            for to in block.next:
                if to <= i:
                    loops[to].add(i)
        exits = {i for i, block in enumerate(self.blocks) if block.code[-1].opcode == "EXIT"}
        counts = [
            None if _count(block.code, forbidden) else tuple(_count(block.code, p) for p in required)
            for block in self.blocks
        ]
        for ends in (loops, {0: exits}):
            paths = [
                self._between(begin, ends[begin], counts, tuple(required.values())) for begin in ends
            ]
            if shortest := min(filter(None, paths), key=len, default=None):
                return shortest
        raise LookupError(f"{self.name}: no path has {dict(required)}")

    def _between(
        self,
        begin: int,
        ends: set[int],
        counts: list[tuple[int, ...] | None],
        required: tuple[int, ...],
    ) -> list[Instruction]:
        """Dijkstra's shortest path over states (block, instructions counted before it); empty if there is
        none."""
        tie, previous = count(), {}
        heap = [(0, next(tie), (begin, (0,) * len(required)), None)]
        while heap:
            length, _, state, before = heappop(heap)
            if state in previous:
                continue
            previous[state] = before
            i, counted = state
            if counts[i] is None:
                continue
            total = tuple(min(a + b, n) for a, b, n in zip(counted, counts[i], required, strict=True))
            if i in ends and total == required:
                return self._instructions(previous, state)
            for to in self.blocks[i].next:
                heappush(heap, (length + len(self.blocks[i].code), next(tie), (to, total), state))
        return []

    def _instructions(self, previous: Mapping, state) -> list[Instruction]:
        path: list[Instruction] = []
        while state is not None:
            path[:0] = self.blocks[state[0]].code
            state = previous[state]
        return path


def _count(code: Iterable[Instruction], pattern: str) -> int:
    return sum(re.match(pattern, one.opcode) is not None for one in code)


def kernels(text: str) -> list[Kernel]:
    """Parse the output of ``nvdisasm -c``."""
    parts = _SECTION.split(text)
    return [Kernel(name, _blocks(body)) for name, body in zip(parts[1::2], parts[2::2], strict=True)]


def _blocks(body: str) -> tuple[Block, ...]:
    code: list[Instruction] = []
    labels: dict[str, int] = {}  # label -> index of the instruction after it
    for m in _LINE.finditer(body):
        if m["label"]:
            labels[m["label"]] = len(code)
        else:
            code.append(Instruction(m["guard"] or "", m["text"]))
    ends = ("BRA", "EXIT", "RET", "CALL")
    leaves = {i + 1 for i, one in enumerate(code) if one.opcode.startswith(ends)}
    starts = sorted(({0} | leaves | set(labels.values())) - {len(code)})
    numbers = {start: i for i, start in enumerate(starts)}
    blocks = []
    for begin, end in zip(starts, [*starts[1:], len(code)], strict=True):
        following = (numbers.get(to) for to in _successors(code[end - 1], end, labels))
        blocks.append(Block(tuple(code[begin:end]), tuple(i for i in following if i is not None)))
    return tuple(blocks)


def _successors(last: Instruction, following: int, labels: Mapping[str, int]) -> Iterator[int]:
    """Yield the instructions that may follow the last one of a block; none after a call."""
    if last.opcode.startswith("CALL"):
        return
    branch = _BRANCH.match(last.text)
    if branch and branch["label"] in labels:
        yield labels[branch["label"]]
    conditional = last.guard or (branch and branch["operand"])
    if conditional or not last.opcode.startswith(("BRA", "EXIT", "RET")):
        yield following
