"""The target speeds on a device: verdicts on a run's rows, and a report in Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.record import LIMIT, Row
from bench.tables import markdown
from bench.tasks import OURS

RULES = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")
LARGE = 2**28
HOST_LIMIT = 10.0  # microseconds


@dataclass
class Verdict:
    work: str
    target: str
    figure: str = "not measured"
    met: bool | None = None


def judge(rows: list[Row], host: list[dict]) -> list[Verdict]:
    return [*_steps(rows), *_lists(rows), *_clips(rows), *_layers(rows), *_host(host)]


def _find(rows: list[Row], task: str, what: str, workload: str) -> list[Row]:
    size = LARGE if workload == "array" else None
    matching = [r for r in rows if (r.task, r.what, r.workload) == (task, what, workload)]
    return [r for r in matching if size in (None, r.elements)]


def _share(work: str, least: float, rows: list[Row], what: str = "a copy's speed") -> Verdict:
    target = f">= {least:.0%} of {what}"
    if not rows:
        return Verdict(work, target)
    share = 1 / rows[0].ours.to_limit.median
    return Verdict(work, target, f"{share:.1%}", share >= least)


def _faster(work: str, least: float, rows: list[Row], prefixes: tuple[str, ...]) -> Verdict:
    """Compare with each peer whose name has one of the prefixes."""
    target = f"{'>' if least == 1 else '>='} {least:g} x {', '.join(prefixes)}"
    peers = rows[0].peers if rows else {}
    ratios = {n: e.to_ours.median for n, e in peers.items() if n.startswith(prefixes)}
    if not ratios:
        return Verdict(work, target)
    figure = ", ".join(f"{ratio:.2f} {name}" for name, ratio in sorted(ratios.items()))
    return Verdict(work, target, figure, min(ratios.values()) >= least)


def _steps(rows: list[Row]) -> Iterator[Verdict]:
    for rule in RULES:
        found, work = _find(rows, "step", rule, "array"), f"{rule}, float32, 2^28"
        yield _share(work, 0.93, found)
        yield _faster(work, 1, found, ("torch fused", "torch foreach", "CuPy kernel", "optax"))


def _lists(rows: list[Row]) -> Iterator[Verdict]:
    for network in ("resnet50", "gpt2"):
        found = _find(rows, "step", "adam", network)
        yield _faster(f"Adam, {network}, plain calls", 1.3, found, ("torch fused",))
        graphs = Verdict(f"Adam, {network}, graph replays", ">= 1.3 x torch's graph")
        if found and {"fastopt graph", "torch graph"} <= set(found[0].peers):
            ratio = (
                found[0].peers["torch graph"].to_ours.median
                / found[0].peers["fastopt graph"].to_ours.median
            )
            graphs.figure, graphs.met = f"{ratio:.2f}", ratio >= 1.3
        yield graphs


def _clips(rows: list[Row]) -> Iterator[Verdict]:
    found, work = _find(rows, "clip", "adamw", "array"), "global-norm clip + AdamW, float32, 2^28"
    yield _share(work, 0.9, found, "a copy's speed on 32 bytes per parameter")
    yield _faster(work, 1.5, found, ("torch",))


def _layers(rows: list[Row]) -> Iterator[Verdict]:
    for task, least in (("batchnorm", 0.85), ("dropout", 0.9)):
        measured = [r for r in rows if r.task == task]
        for row in measured:
            accesses = row.bytes / row.working_set if task == "dropout" else row.bytes / _array(row)
            yield _share(
                row.name,
                least,
                [row],
                f"a copy's speed on {2 if task == 'dropout' else accesses:g} accesses",
            )
            yield _faster(row.name, 1, [row], ("torch",))
        if not measured:
            yield Verdict(f"{task} forward and backward", f">= {least:.0%} of a copy's speed, >= torch")


def _array(row: Row) -> int:
    return row.elements * {"float32": 4, "float64": 8}.get(row.dtype, 2)


def _host(host: list[dict]) -> Iterator[Verdict]:
    target = f"<= {HOST_LIMIT:g} us of host time per call"
    if not host:
        yield Verdict("Adam, any length of list", target)
    for times in host:
        for name in ("same gradients", "new gradients"):
            work = f"Adam, {times['arrays']} arrays of {times['library']}, {name}"
            yield Verdict(work, target, f"{times[name]:.1f} us", times[name] <= HOST_LIMIT)


# ---- the report ----


def report(results: dict, rows: list[Row]) -> str:
    """Return the report in Markdown. ``results`` is the content of the JSON file."""
    about = results["machine"]
    lines = [f"# fastopt on {about.get('gpu', 'an unknown device')}", ""]
    lines += [f"- {name}: {about[name]}" for name in sorted(about) if name not in ("gpu", "caches")]
    if "copy_bandwidth" in about:
        lines.append(f"- a device-to-device copy moves {about['copy_bandwidth'] / 1e9:,.0f} GB/s")
    stages = [(s["name"], s["outcome"], f"{s['seconds']:.0f}", s["says"]) for s in results["stages"]]
    lines += ["", markdown(("stage", "outcome", "seconds", "summary"), stages)]
    verdicts = [Verdict(**v) for v in results["targets"]]
    known = [v for v in verdicts if v.met is not None]
    lines += ["", f"## Targets: {sum(v.met for v in known)} met of {len(known)} measured", ""]
    words = {True: "met", False: "**missed**", None: "-"}
    targets = [(v.work, v.target, v.figure, words[v.met]) for v in verdicts]
    lines.append(markdown(("work", "target", "figure", ""), targets))
    lines += ["", "## All rows: times, and the peers' times divided by fastopt's", ""]
    headers = ("case", "time", "GB/s", "of the copy", "peers", "left out")
    lines.append(markdown(headers, map(_cells, rows)))
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.ours.seconds.median * 1e6:,.1f} us ±{row.ours.seconds.spread:.0%}",
        f"{row.rate(OURS) / 1e9:,.0f} of {row.rate(LIMIT) / 1e9:,.0f}",
        f"{1 / row.ours.to_limit.median:.1%}",
        ", ".join(f"{name} {entry.to_ours.median:.2f}" for name, entry in row.peers.items()),
        ", ".join(f"{name} ({why})" for name, why in row.left_out.items()),
    )
