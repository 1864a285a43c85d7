"""Tables and warnings of a run."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console
from rich.table import Table

from bench.machine import where
from bench.record import LEAST, LIMIT, Memory, Record, Row
from bench.tables import terminal_table
from bench.tasks import OURS

NOISY = 0.05


def show(record: Record, console: Console) -> None:
    levels = record.machine["caches"]
    for section, rows in groupby(record.rows, key=lambda row: (row.task, row.section)):
        console.print(_table(": ".join(filter(None, section)), list(rows), levels))
    for memory in record.memory:
        title = f"memory of {memory.case}: peak beyond its working set of {_size(memory.working_set)}"
        console.print(title, style="italic", highlight=False)
        console.print(_memory(memory))
    for sentence in [*_left_out(record.rows), *_noise(record.rows)]:
        console.print(sentence, style="yellow", highlight=False)


def _table(title: str, rows: list[Row], levels: dict[str, int]) -> Table:
    peers = list(dict.fromkeys(name for row in rows for name in row.peers))
    table = terminal_table(title)
    table.caption = _caption(peers)
    table.add_column("case", no_wrap=True)
    for header in ("caches", "time", "±", "moved", "GB/s", "of\nlimit", "±"):
        table.add_column(header, justify="right", no_wrap=True)
    for name in peers:
        table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row, levels), *(_ratio(row, name) for name in peers))
    return table


def _caption(peers: list[str]) -> str:
    return (
        "a peer's column: its time divided by fastopt's; ≈: quartiles on both sides of 1"
        if peers
        else ""
    )


def _cells(row: Row, levels: dict[str, int]) -> list[str]:
    seconds, to_limit = row.ours.seconds, row.ours.to_limit
    return [
        row.name.removeprefix(f"{row.task} "),
        "cold" if row.cold else f"warm {where(row.working_set, levels)}",
        _time(seconds.median),
        f"{seconds.spread:.0%}",
        _size(row.bytes),
        f"{row.rate(OURS) / 1e9:.1f}",
        f"{1 / to_limit.median:.1%}",
        f"{to_limit.spread:.1%}",
    ]


def _ratio(row: Row, name: str) -> str:
    if name not in row.peers:
        return "-"
    low, median, high = row.peers[name].to_ours
    text = f"{median:.2f}" if median < 100 else f"{median:.0f}"
    if low <= 1 <= high:
        return f"≈ {text}"
    return text if median > 1 else f"[red]{text}[/]"


def _time(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _memory(memory: Memory) -> Table:
    table = terminal_table()
    table.add_column("")
    table.add_column("MiB", justify="right")
    table.add_column("share", justify="right")
    for name, extra in memory.extra.items():
        table.add_row(name, f"{extra / 2**20:,.1f}", f"{extra / memory.working_set:.0%}")
    return table


def count(n: int, thing: str) -> str:
    return f"{n} {thing}{'' if n == 1 else 's'}"


def _left_out(rows: list[Row]) -> list[str]:
    return [
        f"left out of {row.name}: {name}, {why}" for row in rows for name, why in row.left_out.items()
    ]


def noisy_rows(rows: list[Row]) -> list[Row]:
    """Return the rows whose limit varies by more than 5 %."""
    return [row for row in rows if row.entries[LIMIT].seconds.spread > NOISY]


def _noise(rows: list[Row]) -> list[str]:
    """Return warnings about a limit that varied, and about peers that could not be distinguished from
    fastopt."""
    noisy = noisy_rows(rows)
    unclear = [
        f"{row.name} / {name}"
        for row in rows
        for name, entry in row.peers.items()
        if entry.to_ours.low <= 1 <= entry.to_ours.high and abs(entry.to_ours.median - 1) > LEAST
    ]
    sentences = []
    if noisy:
        worst = max(noisy, key=lambda r: r.entries[LIMIT].seconds.spread)
        most = f"most in {worst.name} (±{worst.entries[LIMIT].seconds.spread:.0%})"
        sentences.append(
            f"noisy: the limit itself varies by more than {NOISY:.0%} in {len(noisy)} of {len(rows)} rows, "
            f"{most}; is anything else running?"
        )
    if unclear:
        sentences.append(f"not distinguishable from fastopt because of noise: {', '.join(unclear)}")
    return sentences
