"""The parts of bench/gpu_check.py that need no GPU: its plan, the time limits of its stages, its verdicts and
its report."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fastopt

ROOT = Path(__file__).parents[1]
for package in ("rich", "psutil"):
    pytest.importorskip(package, reason="the benchmarks need it")

sys.path.append(str(ROOT))

from bench import cli, device, engines, gpu_plan, gpu_targets, host_time, machine  # noqa: E402
from bench.case import Competitor  # noqa: E402
from bench.measure import Quartiles, Turn, interleave  # noqa: E402
from bench.record import Entry, Row  # noqa: E402
from bench.run import rotating  # noqa: E402
from bench.step import StepCase  # noqa: E402
from bench.tasks import tasks  # noqa: E402


@pytest.fixture
def gpu_check(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "bench" / "gpu_check.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_check", module)
    spec.loader.exec_module(module)
    return module


def entry(to_limit, to_ours):
    return Entry(*(Quartiles(x, x, x) for x in (1e-3, to_limit, to_ours)))


def row(case, to_limit, **peers):
    entries = {"limit": entry(1, 1), "fastopt": entry(to_limit, 1)}
    entries |= {name.replace("_", " "): entry(1, ratio) for name, ratio in peers.items()}
    return Row.of(case, entries, {"optax": "cannot: no CUDA"})


def test_gpu_check_without_a_gpu_exits_with_status_2(gpu_check):
    if gpu_check.gpu():
        pytest.skip("this machine has a GPU")
    command = [sys.executable, ROOT / "bench" / "gpu_check.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "gpu_check: no NVIDIA GPU found, or no driver for it\n"


def test_missing_packages_are_named(gpu_check, monkeypatch):
    monkeypatch.setattr(
        gpu_check.importlib.util, "find_spec", lambda name: name not in ("cupy", "rich")
    )
    assert gpu_check.missing_requirement(("X", "90"), ["bench"]) == "not installed: CuPy, rich"


def test_every_stage_of_the_plan_is_a_valid_command(gpu_check, monkeypatch, tmp_path):
    monkeypatch.setattr(device, "unavailable_reason", lambda: "")
    stages = gpu_plan.plan(tmp_path, "90")
    assert [s.name for s in stages][:3] == ["build", "build:import", "tests"]
    assert all(s.belongs_to(list(gpu_plan.GROUPS)) for s in stages)
    run = [Path(part).name for part in stages[2].command if part.endswith(".py")]
    assert run[0] == "test_cuda_device.py"
    assert "test_cuda_steps.py" in run
    assert "test_cuda_shim.py" not in run
    assert "-Ccmake.define.FASTOPT_CUDA_ARCHITECTURES=90" in stages[0].command
    for stage in stages:
        if "bench" in stage.command:
            options = stage.command[stage.command.index("bench") + 1 :]
            args = cli.parse(options, tasks())
            assert (args.device, str(args.json)) == ("cuda", stage.json)


def test_names_selected_by_the_plan_exist(tmp_path):
    """Otherwise a renamed test would be missing from the sanitizer stage, or a renamed file would run without a
    device."""
    sanitizer = gpu_plan.plan(tmp_path, "90")[-1]
    files = [Path(part) for part in sanitizer.command if part.endswith(".py")]
    tests = re.findall(r"^def (test_\w+)", "".join(file.read_text() for file in files), re.MULTILINE)
    assert len(files) == 2
    for word in set(re.findall(r"\w+", gpu_plan.SANITIZED)) - {"and", "or", "not"}:
        assert any(word in name for name in tests), word
    for word in gpu_plan.HOST_ONLY:
        assert (gpu_plan.TESTS / f"test_cuda_{word}.py").exists()


def test_stages_fail_and_time_out_independently(gpu_check, tmp_path):
    check = gpu_check.Check(tmp_path / "out", tmp_path, 1, {"gpu": "none"})

    def stage(name, code, limit=30, says=lambda log: ""):
        return gpu_plan.Stage(name, limit, [sys.executable, "-c", code], says)

    check.run(stage("bad", "raise SystemExit(3)"))
    check.run(stage("slow", "import time; print('begun', flush=True); time.sleep(60)", 1))
    check.run(stage("good", "print('tests/a.py::b PASSED')", says=gpu_plan.outcomes))
    check.run(gpu_plan.Stage("gone", 1, ["no-such-tool"]))
    check.deadline = 0
    check.run(stage("late", ""))
    results = json.loads((tmp_path / "out" / "gpu_check.json").read_text())
    assert [s["outcome"] for s in results["stages"]] == [
        "failed with status 3",
        "timed out after 1 s",
        "ok",
        "skipped: no-such-tool not found",
        "skipped: no time left",
    ]
    assert results["stages"][2]["says"] == "1 passed"
    assert "begun" in (tmp_path / "out" / "gpu_check.log").read_text()
    assert "| slow | timed out after 1 s |" in (tmp_path / "out" / "gpu_check.md").read_text()


@pytest.mark.parametrize("needed", [True, False])
def test_failure_of_a_needed_stage_ends_the_run(gpu_check, monkeypatch, tmp_path, needed):
    stages = [
        gpu_plan.Stage(
            "build:import", 30, [sys.executable, "-c", "raise SystemExit(3)"], needed=needed
        ),
        gpu_plan.Stage("build:next", 30, [sys.executable, "-c", ""]),
    ]
    monkeypatch.setattr(gpu_check, "plan", lambda *args: stages)
    monkeypatch.setattr(gpu_check, "gpu", lambda: ("none", "90"))
    monkeypatch.setattr(gpu_check, "missing_requirement", lambda *args: "")
    assert gpu_check.main(["--out", str(tmp_path), "--work", str(tmp_path), "--only", "build"]) == 1
    results = json.loads((tmp_path / "gpu_check.json").read_text())
    outcomes = [s["outcome"] for s in results["stages"]]
    assert outcomes == ["failed with status 3", "ok"][: 1 if needed else 2]


def test_tools_are_searched_on_the_path_of_the_stage(gpu_check, monkeypatch, tmp_path):
    """The toolkit's folder need not be on the PATH of the process that starts the check."""
    tool = tmp_path / "tool-of-the-toolkit"
    tool.write_text("#!/bin/sh\nexit 0\n")
    tool.chmod(0o700)
    check = gpu_check.Check(tmp_path / "out", tmp_path, 1, {"gpu": "none"})
    monkeypatch.setattr(check, "environment", lambda stage: {"PATH": str(tmp_path)})
    check.run(gpu_plan.Stage("there", 30, [tool.name]))
    assert check.results["stages"][0]["outcome"] == "ok"


def test_incomplete_json_file_is_ignored(gpu_check, tmp_path):
    check = gpu_check.Check(tmp_path / "out", tmp_path, 1, {"gpu": "none"})
    figures = str(tmp_path / "figures.json")
    half = f"open({figures!r}, 'w').write('{{\"rows\": [')"
    check.run(gpu_plan.Stage("half", 30, [sys.executable, "-c", half], json=figures))
    assert (check.results["stages"][0]["outcome"], check.results["rows"]) == ("ok", [])


def test_without_git_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.commit() == "unknown"


def test_outcomes_are_counted_with_and_without_xdist():
    log = """
tests/a.py::one[x] PASSED                                        [ 10%]
[gw0] [ 20%] FAILED tests/a.py::two
[gw1] [ 30%] SKIPPED tests/a.py::three
FAILED tests/a.py::two - AssertionError: no
"""
    assert gpu_plan.outcomes(log) == "1 passed, 1 failed, 1 skipped, first tests/a.py::two"
    assert gpu_plan.outcomes("") == "no tests ran"


def test_host_time_excludes_device_time(monkeypatch):
    """On the CPU there is only one time. The time of a call is the time of a round divided by the number of
    calls."""
    for name, value in (("LENGTHS", (2,)), ("CALLS", 4), ("ROUNDS", 3)):
        monkeypatch.setattr(host_time, name, value)
    assert set(host_time.measure("cpu")[0]) == {"library", "arrays", "same gradients", "new gradients"}
    monkeypatch.setattr(host_time, "_synchronize", lambda where: time.sleep(0.02))
    returned, done = host_time._microseconds("cuda", lambda: None, lambda grads: time.sleep(0.002))
    assert returned >= 2000
    assert done - returned >= 5000


def test_verdicts_and_report_of_a_canned_run():
    adam = row(StepCase("adam", "array", 2**28), 1 / 0.95, torch_fused=1.1, CuPy_kernel=0.9)
    sgd = row(StepCase("sgd", "array", 2**28), 1 / 0.9, torch_fused=1.1)
    graphs = {"torch_fused": 1.2, "torch_graph": 0.9, "fastopt_graph": 0.5}
    rows = [adam, sgd, row(StepCase("adam", "resnet50"), 1.0, **graphs)]
    host = [{"library": "cupy", "arrays": 161, "same gradients": 9.0, "new gradients": 11.0}]
    verdicts = gpu_targets.judge(rows, host)
    results = {(v.work, v.target.split(" of ")[0]): (v.figure, v.met) for v in verdicts}
    assert results["adam, float32, 2^28", ">= 93%"] == ("95.0%", True)
    assert results["sgd, float32, 2^28", ">= 93%"] == ("90.0%", False)
    assert results["momentum, float32, 2^28", ">= 93%"] == ("not measured", None)
    faster = {v.work: v for v in verdicts if v.target.startswith("> 1")}
    assert not faster["adam, float32, 2^28"].met
    assert faster["sgd, float32, 2^28"].met
    assert results["Adam, resnet50, graph replays", ">= 1.3 x torch's graph"] == ("1.80", True)
    assert results["Adam, 161 arrays of cupy, new gradients", "<= 10 us"] == ("11.0 us", False)
    data = {"machine": {"gpu": "Card", "copy_bandwidth": 4e12}, "stages": [], "targets": []}
    data["targets"] = [vars(v) for v in verdicts]
    text = gpu_targets.report(data, rows)
    assert text.startswith("# fastopt on Card\n")
    assert "moves 4,000 GB/s" in text
    assert "| sgd, float32, 2^28 | >= 93% of a copy's speed | 90.0% | **missed** |" in text
    assert "optax (cannot: no CUDA)" in text


def test_calls_rotate_through_the_sets_of_arrays():
    calls = []
    sets = [
        Competitor(
            lambda i=i: calls.append(i), list, lambda i=i: calls.append(-i), lambda: calls.append("end")
        )
        for i in range(1, 4)
    ]
    one = rotating(sets)
    for _ in range(4):
        one.run()
    one.limit()
    one.wait()
    assert calls == [1, 2, 3, 1, -1, "end", "end", "end"]


def test_a_graph_contains_whole_rotations_and_counts_its_calls(monkeypatch):
    queued, graphs = [], []

    def capture(calls):
        before = len(queued)
        calls()
        graphs.append((queued[:before], queued[before:]))
        return lambda: None

    monkeypatch.setattr(device, "capture", capture)
    sets = [
        Competitor(lambda i=i: queued.append(i), list, lambda i=i: queued.append(-i), capture=capture)
        for i in range(1, 4)
    ]
    one = device.as_cuda_graph(rotating(sets), 3)
    assert one.calls == 21
    (before, run), (_, limit) = graphs
    assert before == [1, 2, 3]
    assert run == [1, 2, 3] * 7
    assert limit == [-1, -2, -3] * 7
    with pytest.raises(NotImplementedError, match="cannot be captured"):
        device.as_cuda_graph(Competitor(list, list), 1)


def test_race_creates_checks_and_times_each_engine(monkeypatch):
    current, events = [], []

    class One(StepCase):
        def check(self, competitor):
            events.append(("checked", current[-1]))

    def make(case):
        engine = current[-1]
        return Competitor(lambda: events.append(("ran", engine)), list, lambda: None)

    first, second = (SimpleNamespace(use=lambda name=name: current.append(name)) for name in "ab")
    monkeypatch.setattr(device, "num_buffer_sets", lambda case: 2)
    monkeypatch.setattr(device, "as_cuda_graph", lambda one, sets: replace(one, calls=4))
    monkeypatch.setattr(device, "Turn", Turn)
    case = One("adam", "array", 64)
    times = engines.race(case, SimpleNamespace(make=make), {"old": first, "new": second}, 0.01)
    assert list(times) == ["limit", "old", "new"]
    assert current == ["a", "b"]
    assert [event for event in events if event[0] == "checked"] == [("checked", "a"), ("checked", "b")]
    assert {("ran", "a"), ("ran", "b")} <= set(events)
    line = engines.line(case, times, "old")
    assert line.startswith("step adam array 2^6 f32: copy ")
    assert re.search(r"old [\d.]+ us \(1.000 ±0.0%\), new [\d.]+ us \(", line)


def test_plain_suffix_of_an_engine_name_disables_clusters(cuda):
    if cuda.name != "shim":
        pytest.skip("the shim has a library of its own")
    path = cuda.lib._name
    x = cuda.array(np.ones((5, 1, 40, 40), np.float32))
    for text, plain in (("+plain", True), ("", False)):
        engine = engines.Engine.named(path + text)
        assert (engine.library._name, engine.plain) == (path, plain)
        engine.use()
        cuda.hold(20_000)  # smaller than a channel
        cuda.counts()
        fastopt.functional.batch_norm_forward(x)
        cuda.hold(2**40)
        assert cuda.counts()["clustered"] == (0 if plain else 1)


def test_race_without_a_version_or_device_is_rejected(capsys):
    assert engines.main(["step", "adam"]) == 2
    assert "expected at least one version" in capsys.readouterr().err
    if device.unavailable_reason():
        with pytest.raises(SystemExit):
            engines.main(["new=new.so", "step", "adam"])
        assert "--device cuda" in capsys.readouterr().err


def test_time_of_a_turn_is_divided_by_its_calls():
    class Second(Turn):
        def __call__(self):
            return 1.0

    turns = {f"{calls} calls": Second(list, None, calls=calls) for calls in (1, 10)}
    times = interleave(turns, seconds=0.01, every_round={"1 calls"})
    assert [t.seconds.median for t in times.values()] == [1.0, 0.1]


@pytest.mark.parametrize(("size", "sets"), [(2**10, 1), (2**18, 13), (2**22, 1)])
def test_cases_rotate_through_buffer_sets_if_one_set_fits_in_l2(monkeypatch, size, sets):
    monkeypatch.setattr(device, "l2", lambda: 12 << 20)
    case = StepCase("sgd", "array", size, device="cuda")
    assert device.num_buffer_sets(case) == sets
    assert sets == 1 or (sets - 1) * case.working_set >= 2 * device.l2()
