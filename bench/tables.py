"""Tables for a terminal and for Markdown files."""

from __future__ import annotations

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.table import Table


def terminal_table(title: str | None = None) -> Table:
    return Table(
        title=title, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )


def markdown(headers: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    headers = list(headers)
    return "\n".join([line(headers), line(["---"] * len(headers)), *map(line, rows)])
