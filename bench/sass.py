"""Machine code as nvdisasm prints it: the kernels of a file, and the way that a warp takes through one.

A kernel that serves many cases branches, and nothing in it says which way is the usual one. What is looked for
is the shortest way that makes the loads, stores and products of the case at hand: round a loop or, where no
loop makes them, from the first instruction to the last. It enters no subroutine: a division and a square root
have one each, for operands that are denormal or out of range."""

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
    guard: str  # the predicate that it waits for, or nothing
    text: str  # the rest

    @property
    def opcode(self) -> str:
        return self.text.split(maxsplit=1)[0]


@dataclass(frozen=True)
class Block:
    """Instructions in a row, entered at the first and left after the last."""

    code: tuple[Instruction, ...]
    next: tuple[int, ...]  # blocks


@dataclass(frozen=True)
class Kernel:
    name: str  # mangled
    blocks: tuple[Block, ...]

    @property
    def code(self) -> list[Instruction]:
        return [one for block in self.blocks for one in block.code]

    def way(self, needs: Mapping[str, int], never: str = "CALL") -> list[Instruction]:
        """The shortest that has so many instructions of each pattern, and none of a block with ``never``."""
        loops: dict[int, set[int]] = defaultdict(set)  # by first block: those that go back to it
        for i, block in enumerate(self.blocks):
            for to in block.next:
                if to <= i:
                    loops[to].add(i)
        exits = {i for i, block in enumerate(self.blocks) if block.code[-1].opcode == "EXIT"}
        met = [
            None if _count(block.code, never) else tuple(_count(block.code, p) for p in needs)
            for block in self.blocks
        ]
        for ends in (loops, {0: exits}):
            ways = [self._between(begin, ends[begin], met, tuple(needs.values())) for begin in ends]
            if shortest := min(filter(None, ways), key=len, default=None):
                return shortest
        raise LookupError(f"{self.name}: no way through it has {dict(needs)}")

    def _between(
        self, begin: int, ends: set[int], met: list[tuple[int, ...] | None], needs: tuple[int, ...]
    ) -> list[Instruction]:
        """Dijkstra's shortest path, over blocks and what was met before them; empty if there is none."""
        turn, came = count(), {}
        waiting = [(0, next(turn), (begin, (0,) * len(needs)), None)]
        while waiting:
            length, _, at, before = heappop(waiting)
            if at in came:
                continue
            came[at] = before
            i, had = at
            if met[i] is None:
                continue
            has = tuple(min(a + b, n) for a, b, n in zip(had, met[i], needs, strict=True))
            if i in ends and has == needs:
                return self._walked(came, at)
            for to in self.blocks[i].next:
                heappush(waiting, (length + len(self.blocks[i].code), next(turn), (to, has), at))
        return []

    def _walked(self, came: Mapping, at) -> list[Instruction]:
        way: list[Instruction] = []
        while at is not None:
            way[:0] = self.blocks[at[0]].code
            at = came[at]
        return way


def _count(code: Iterable[Instruction], pattern: str) -> int:
    return sum(re.match(pattern, one.opcode) is not None for one in code)


def kernels(text: str) -> list[Kernel]:
    """Of what ``nvdisasm -c`` prints."""
    parts = _SECTION.split(text)
    return [Kernel(name, _blocks(body)) for name, body in zip(parts[1::2], parts[2::2], strict=True)]


def _blocks(body: str) -> tuple[Block, ...]:
    code: list[Instruction] = []
    labels: dict[str, int] = {}  # to the number of the instruction that follows
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
        following = (numbers.get(to) for to in _goes(code[end - 1], end, labels))
        blocks.append(Block(tuple(code[begin:end]), tuple(i for i in following if i is not None)))
    return tuple(blocks)


def _goes(last: Instruction, following: int, labels: Mapping[str, int]) -> Iterator[int]:
    """Where a block may go on: nowhere from a call."""
    if last.opcode.startswith("CALL"):
        return
    branch = _BRANCH.match(last.text)
    if branch and branch["label"] in labels:
        yield labels[branch["label"]]
    asks = last.guard or (branch and branch["operand"])
    if asks or not last.opcode.startswith(("BRA", "EXIT", "RET")):
        yield following
