"""The record of a run as JSON, and the comparison of two runs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.case import Case
from bench.measure import Quartiles
from bench.tasks import OURS

LIMIT = "limit"
LEAST = 0.03  # the smallest relative change that counts


@dataclass
class Entry:
    """One competitor in one case."""

    seconds: Quartiles
    to_limit: Quartiles  # its time divided by the limit's, within a round
    to_ours: Quartiles  # its time divided by fastopt's, within a round


@dataclass
class Row:
    name: str
    section: str
    task: str
    what: str
    workload: str
    dtype: str
    cold: bool
    elements: int
    bytes: int
    flops: int
    working_set: int
    entries: dict[str, Entry]
    left_out: dict[str, str]

    @classmethod
    def of(cls, case: Case, entries: dict[str, Entry], left_out: dict[str, str]) -> Row:
        fields = set(cls.__dataclass_fields__) - {"entries", "left_out"}
        return cls(**{f: getattr(case, f) for f in fields}, entries=entries, left_out=left_out)

    @property
    def ours(self) -> Entry:
        return self.entries[OURS]

    @property
    def peers(self) -> dict[str, Entry]:
        return {n: e for n, e in self.entries.items() if n not in (OURS, LIMIT)}

    def rate(self, name: str) -> float:
        """Return the throughput in bytes per second."""
        return self.bytes / self.entries[name].seconds.median


@dataclass
class Memory:
    """The peak memory of each competitor's step, in bytes, beyond parameters, gradients and state."""

    case: str
    working_set: int
    extra: dict[str, int]


@dataclass
class Record:
    machine: dict
    rows: list[Row] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Record:
        return cls.of(json.loads(path.read_text()))

    @classmethod
    def of(cls, data: dict) -> Record:
        rows = [Row(**{**row, "entries": _entries(row["entries"])}) for row in data["rows"]]
        return cls(data["machine"], rows, [Memory(**m) for m in data["memory"]])


def _entries(data: dict) -> dict[str, Entry]:
    return {
        name: Entry(**{field: Quartiles(*q) for field, q in entry.items()})
        for name, entry in data.items()
    }


def pairs(old: Record, new: Record) -> list[tuple[Row, Row]]:
    """Return the rows of the same case in two runs, as pairs of an old and a new row.

    The full suite measures some cases in two sections. A row is paired with the one of its own section if there
    is one, and otherwise, as when one of the runs measured a single task, with the last of its name."""
    last = {row.name: row for row in old.rows}
    exact = {(row.name, row.section): row for row in old.rows}
    found = ((exact.get((row.name, row.section)) or last.get(row.name), row) for row in new.rows)
    return [(before, row) for before, row in found if before is not None]


def slower(old: Record, new: Record) -> list[str]:
    """Return a sentence for each case that became slower by more than the noise.

    Times are relative to the limit of the same run, so that a slower machine does not count as slower code. The
    quartiles must not overlap, and the medians must differ by more than 3 %."""
    sentences = []
    for before, after in pairs(old, new):
        was, now = before.ours.to_limit, after.ours.to_limit
        if now.low > was.high and now.median > was.median * (1 + LEAST):
            change = now.median / was.median - 1
            shares = f"from {1 / was.median:.0%} of the limit to {1 / now.median:.0%}"
            sentences.append(f"{after.name}: {change:.0%} slower, {shares}")
    return sentences
