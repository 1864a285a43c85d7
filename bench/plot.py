"""Plots of a record: ``python -m bench ... --plot DIR``, or ``python -m bench.plot FILE DIR`` for a stored
one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import arguments
from bench.record import LIMIT, Record, Row
from bench.report import count
from bench.tasks import OURS

INK, FAINT = "#222222", "#bbbbbb"
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # behind text that crosses a line
OURS_COLOR = "#d62728"
# Distinguishable with red-green color blindness (Okabe & Ito 2008), and some more.
COLORS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#56b4e9",
    "#cc79a7",
    "#8c6d31",
    "#000000",
    "#7f7f7f",
    "#9467bd",
    "#999933",
    "#882255",
)
MARKS = "osD^v<>PpXhd8*"  # for the parts of a task
ACROSS = 4  # panels per row
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def draw(record: Record, folder: Path) -> list[Path]:
    """Draw every plot for which the record has rows, and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with mpl.rc_context(STYLE):
        for name, figure in _figures(record):
            path = folder / f"{name}.png"
            figure.savefig(path, dpi=150)
            plt.close(figure)
            paths.append(path)
    return paths


def _figures(record: Record) -> Iterator[tuple[str, Figure]]:
    colors = _colors(record)
    curves: dict[tuple[str, ...], list[Row]] = {}
    workloads: dict[tuple[str, ...], list[Row]] = {}
    for row in record.rows:
        kind = (row.task, row.what, row.dtype, *(["cold"] if row.cold else []))
        if row.workload == "array":
            curves.setdefault(kind, []).append(row)
        else:
            workloads.setdefault(kind, []).append(row)
    for kind, rows in curves.items():
        unique = {row.elements: row for row in rows}  # the full suite has some sizes in two sections
        if len(unique) > 2:
            ordered = sorted(unique.values(), key=lambda row: row.elements)
            yield f"growth-{'-'.join(kind)}", _growth(kind, ordered, colors, record.machine)
    for kind, rows in workloads.items():
        yield f"workloads-{'-'.join(kind)}", _bars(kind, rows, colors, record.machine)
    if of_roofline := [row for row in record.rows if row.dtype == "float32" and not row.cold]:
        yield "roofline", _roofline(of_roofline, record.machine)


def _colors(record: Record) -> dict[str, str]:
    peers = sorted({name for row in record.rows for name in row.peers})
    return {OURS: OURS_COLOR, **{n: COLORS[i % len(COLORS)] for i, n in enumerate(peers)}}


def _made_with(machine: dict) -> str:
    threads = count(machine["threads"], "thread")
    return (
        f"{machine['cpu']}, {threads}, {machine['isa']}, commit {machine['commit']}, {machine['date']}"
    )


def _subtitle(axes: Axes, title: str, machine: dict) -> None:
    axes.set_title(title)
    axes.figure.supxlabel(_made_with(machine), x=0.99, ha="right", fontsize=7, color="gray")


# ---- throughput over size ----


def _growth(kind: tuple[str, ...], rows: list[Row], colors: dict[str, str], machine: dict) -> Figure:
    figure, axes = plt.subplots(figsize=(8, 5))
    sizes = [row.elements for row in rows]
    limit = [row.entries[LIMIT].seconds for row in rows]
    gb = [row.bytes / 1e9 for row in rows]
    axes.fill_between(
        sizes,
        [b / t.high for b, t in zip(gb, limit, strict=True)],
        [b / t.low for b, t in zip(gb, limit, strict=True)],
        color=FAINT,
        alpha=0.4,
        linewidth=0,
    )
    axes.plot(sizes, _rates(rows, LIMIT), "--", color=INK, lw=1.2, label="the limit, measured")
    axes.plot(sizes, _rates(rows, OURS), "o-", color=OURS_COLOR, lw=2.4, ms=4, label=OURS, zorder=3)
    peers = sorted({n for row in rows for n in row.peers}, key=lambda n: -_last(rows, n))
    for name in peers:
        axes.plot(sizes, _rates(rows, name), ".-", color=colors[name], lw=1, ms=4, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("elements")
    axes.set_ylabel("GB/s that must move")
    _mark_caches(axes, rows, machine["caches"])
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    _subtitle(axes, f"{' '.join(kind)}: throughput over size", machine)
    return figure


def _rates(rows: list[Row], name: str) -> list[float]:
    return [row.rate(name) / 1e9 if name in row.entries else float("nan") for row in rows]


def _last(rows: list[Row], name: str) -> float:
    return next(row.rate(name) for row in reversed(rows) if name in row.entries)


def _mark_caches(axes: Axes, rows: list[Row], caches: dict[str, int]) -> None:
    """Mark the sizes from which the arrays no longer fit into a cache."""
    bytes_per_element = rows[-1].working_set / rows[-1].elements
    for name, size in caches.items():
        elements = size / bytes_per_element
        if rows[0].elements < elements < rows[-1].elements:
            axes.axvline(elements, color=FAINT, lw=1, zorder=0)
            axes.annotate(
                f"{name} ",
                (elements, 1.0),
                xycoords=("data", "axes fraction"),
                ha="right",
                va="top",
                color="gray",
            )


# ---- bars for each workload ----


def _bars(kind: tuple[str, ...], rows: list[Row], colors: dict[str, str], machine: dict) -> Figure:
    """Draw the shares of the limit's speed, with quartiles."""
    names = [OURS, *dict.fromkeys(n for row in rows for n in row.peers)]
    names[1:] = sorted(names[1:], key=lambda n: -max(_share(row, n) for row in rows))
    down, across = -(-len(rows) // ACROSS), min(len(rows), ACROSS)
    figure, grid = plt.subplots(
        down,
        across,
        figsize=(2 + 2.6 * across, down * (1.4 + 0.28 * len(names))),
        sharey=True,
        squeeze=False,
    )
    for axes in grid.flat[len(rows) :]:
        axes.set_visible(False)
    for axes, row in zip(grid.flat, rows, strict=False):
        axes.axvline(100, color=INK, ls="--", lw=1, zorder=0)
        axes.barh(
            names, [100 * _share(row, n) for n in names], color=[colors[n] for n in names], height=0.7
        )
        ends = [0.0]
        for i, name in enumerate(names):
            slow, fast = _quartiles(row, name)
            axes.plot([slow, fast], [i, i], color=INK, lw=1)
            axes.text(fast + 3, i, _percent(row, name), va="center", fontsize=8, bbox=PAPER)
            ends.append(fast)
        axes.set_xlim(0, max(115, max(ends) + 25))
        axes.set_xticks([0, 50, 100])
        axes.set_title(row.workload, fontsize=10)
    grid[0][0].invert_yaxis()
    figure.suptitle(f"{' '.join(kind)}: % of the limit's speed", x=0.01, ha="left", weight="bold")
    figure.supxlabel(_made_with(machine), x=0.99, ha="right", fontsize=7, color="gray")
    return figure


def _quartiles(row: Row, name: str) -> tuple[float, float]:
    """Return the quartiles as percentages of the limit's speed."""
    if name not in row.entries:
        return 0.0, 0.0
    low, _, high = row.entries[name].to_limit
    return 100 / high, 100 / low


def _share(row: Row, name: str) -> float:
    return 1 / row.entries[name].to_limit.median if name in row.entries else 0.0


def _percent(row: Row, name: str) -> str:
    if name not in row.entries:
        return "cannot" if name in row.left_out else "not run"
    share = 100 * _share(row, name)
    return f"{share:.0f}" if share >= 10 else f"{share:.1f}"


# ---- roofline ----


def _roofline(rows: list[Row], machine: dict) -> Figure:
    """Draw the roofline (Williams, Waterman & Patterson 2009). Both roofs are measured: the slopes are the
    limit's throughput in the largest case and in the case where it is highest, the ceiling is a matrix
    product."""
    figure, axes = plt.subplots(figsize=(9, 5))
    ceiling = machine["peak_flops"] / 1e9
    largest = max(rows, key=lambda row: row.working_set)
    fastest = max(rows, key=lambda row: row.rate(LIMIT))
    for row, style in ((largest, "-"), (fastest, "--")):
        rate = row.rate(LIMIT) / 1e9
        ridge = ceiling / rate
        label = f"{rate:.0f} GB/s, the limit in {row.name.removesuffix(' f32')}"
        axes.plot(
            [2**-4, ridge, 2**4], [rate / 16, ceiling, ceiling], style, color=INK, lw=1.4, label=label
        )
    axes.text(2**4, ceiling * 1.08, f"{ceiling:.0f} GFLOP/s, a matrix product", fontsize=8, ha="right")
    for task, color in zip(sorted({row.task for row in rows}), COLORS, strict=False):
        of_task = [row for row in rows if row.task == task]
        for what, mark in zip(dict.fromkeys(row.what for row in of_task), MARKS, strict=False):
            points = [row for row in of_task if row.what == what]
            cached = [row.working_set <= max(machine["caches"].values(), default=0) for row in points]
            axes.scatter(
                [row.flops / row.bytes for row in points],
                [row.flops / row.ours.seconds.median / 1e9 for row in points],
                marker=mark,
                s=36,
                facecolors=["none" if c else color for c in cached],
                edgecolors=color,
                label=f"{task} {what}",
                zorder=3,
            )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("operations per byte, as the formula is written")
    axes.set_ylabel("GFLOP/s")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    _subtitle(axes, "Roofline of fastopt, float32; hollow: in cache", machine)
    return figure


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.plot", description="Plot a stored record.")
    parser.add_argument(
        "record", metavar="FILE", type=arguments.record, help="record written by --json"
    )
    parser.add_argument("folder", metavar="DIR", type=arguments.folder, help="folder for the plots")
    args = parser.parse_args(argv)
    for path in draw(args.record, args.folder):
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
