"""The benchmarks run: small sizes, every rule, dtype and competitor that is installed, each result
checked by the benchmark itself. No timing is looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fastopt import _core

ROOT = Path(__file__).parents[1]
for package in ("rich", "psutil", "matplotlib"):
    pytest.importorskip(package, reason="the benchmarks need it")

sys.path.append(str(ROOT))

from bench import memory, run, workloads  # noqa: E402
from bench.case import Contestant, WrongError, compare, sample  # noqa: E402
from bench.measure import Quartiles, Turn, interleave  # noqa: E402
from bench.record import Entry, Record, Row, slower  # noqa: E402
from bench.step import StepCase, numpy_, ours  # noqa: E402
from bench.tasks import competitors, tasks  # noqa: E402

TASKS = tasks()


def bench(*options, rc=0, module="bench"):
    command = [sys.executable, "-m", module, *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == rc, done.stderr
    return done


# -- The command line ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        (["step", "--size", 5000], 7),
        (["step", "sgd", "adam", "--size", 5000, "--dtype", "f16,bf16,f64"], 6),
        (["clip", "--workload", "mlp", "--dtype", "f16,bf16,f32,f64"], 8),
        (["step", "--workload", "mlp", "--threads", 1, "--isa", "v2", "--peers", "num"], 7),
        (["step", "adam", "sgd", "--size", "2**10:4096", "--cold", "--peers", ""], 6),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_every_case_is_checked_and_recorded(options, rows, tmp_path):
    file = tmp_path / "record.json"
    bench(*options, "--seconds", 0.01, "--json", file)
    told = Record.read(file)
    assert len({row.name for row in told.rows}) == len(told.rows) == rows
    for row in told.rows:
        assert row.rate("fastopt") > 0
        assert row.rate("limit") > 0
        assert all(name.startswith("torch") or name == "optax" for name in row.left_out), row.left_out


def test_pictures_and_a_comparison_with_an_earlier_run(tmp_path):
    file = tmp_path / "old.json"
    options = ["step", "adam", "--seconds", 0.01, "--peers", "NumPy"]
    bench(*options, "--size", "1000,2000,4000", "--plot", tmp_path, "--json", file)
    bench(*options, "--workload", "mlp", "--plot", tmp_path)
    pictures = {path.stem for path in tmp_path.glob("*.png")}
    assert pictures == {"growth-step-adam-float32", "workloads-step-adam-float32", "roofline"}
    told = json.loads(file.read_text())
    for row in told["rows"]:  # a past in which each took a thousandth of the time
        row["entries"]["fastopt"]["to_limit"] = [
            1e-3 * q for q in row["entries"]["fastopt"]["to_limit"]
        ]
    file.write_text(json.dumps(told))
    done = bench(*options, "--size", 2000, "--compare", file, rc=1)
    assert "step adam array 2,000 f32: " in done.stdout
    done = bench(*options, "--size", 3000, "--compare", file, rc=2)
    assert "nothing can be compared: no case is in both" in done.stdout


def test_memory_is_measured_in_a_process_for_each_competitor(tmp_path):
    file = tmp_path / "memory.json"
    options = ["clip", "adamw", "--memory", "--size", 2**22, "--peers", "NumPy", "--json", file]
    bench(*options)
    [told] = Record.read(file).memory
    array = 4 << 22
    assert told.working_set == 4 * array
    assert told.extra["fastopt"] < array / 8
    assert told.extra["NumPy"] > array / 2


def test_on_a_device_memory_is_what_it_has_given_out(monkeypatch):
    left = [10**6]
    for told in ("free", "left"):
        monkeypatch.setattr(f"bench.device.{told}", lambda: left[0])

    class Keeper:
        """Takes its arrays and, in its first step, 7 bytes more, which it keeps."""

        @staticmethod
        def make(case):
            left[0] -= case.working_set
            steps = []

            def run():
                left[0] -= 0 if steps else 7
                steps.append(1)

            return Contestant(run, lambda: [])

    case = StepCase("adam", "array", 1000, device="cuda")
    assert memory.extra(case, TASKS["step"], Keeper) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["step", "adman"], "there is no 'adman', only sgd, momentum"),
        (["step", "adam", "--workload", "alexnet"], "there is no 'alexnet', only array, embedding"),
        (["stop"], "invalid choice: 'stop'"),
        (["--device", "cuda"], f"--device cuda: {_core.cuda_trouble()}"),
        (["step", "--dtype", "f8"], "no such dtype: f8"),
        (["step", "--size", "0"], "'0' is no size"),
        (["step", "--size", "2**10:many"], "'many' is no size"),
        (["step", "--dtype", ""], "argument --dtype: it names nothing"),
        (["step", "--size", ""], "argument --size: it names nothing"),
        (["step", "--workload", ","], "argument --workload: it names nothing"),
        (["--workload", "nope"], "--workload needs a task; a whole run has its own"),
        (["--dtype", "f16"], "--dtype needs a task"),
        (["--isa", "v9"], "argument --isa: invalid choice: 'v9'"),
        (["--seconds", "nan"], "argument --seconds: 'nan' is no time, expected a number above 0"),
        (["--seconds", "-1"], "argument --seconds: '-1' is no time"),
        (["--seconds", "soon"], "argument --seconds: 'soon' is no time"),
        (["--json", "/none/x.json"], "argument --json: no file can be written at /none/x.json"),
        (["--json", "README.md/x.json"], "argument --json: no file can be written at README.md/x.json"),
        (["--plot", "README.md"], "argument --plot: README.md is no folder to write to"),
        (["--plot", "README.md/x"], "argument --plot: README.md/x is no folder to write to"),
        (["--compare", "gone.json"], "--compare: there is no file gone.json"),
        (["--compare", "README.md"], "--compare: README.md is no record that --json has written"),
        (["--compare", "tests/fingerprints.json"], "tests/fingerprints.json is no record that"),
        (["--threads", "-1"], "--threads is -1, but must be 0 or more"),
        (["--memory"], "--memory needs a task"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_refused_in_a_sentence(options, message):
    assert message in bench(*options, rc=2).stderr


@pytest.mark.parametrize("module", ["bench", "bench.plot", "bench.engines"])
def test_help_is_printed(module):
    done = bench("--help", module=module)
    assert done.stdout.startswith(f"usage: python -m {module} ")


def test_a_stored_record_is_drawn(tmp_path):
    file = tmp_path / "record.json"
    bench("step", "adam", "--seconds", 0.01, "--peers", "", "--size", 1000, "--json", file)
    drawn = bench(file, tmp_path / "new" / "pictures", module="bench.plot").stdout.split()
    assert drawn == [str(tmp_path / "new" / "pictures" / "roofline.png")]
    assert Path(drawn[0]).exists()
    assert "is no record" in bench("README.md", tmp_path, module="bench.plot", rc=2).stderr


# -- Cases and their checks ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tensors", "elements"),
    [
        ("mlp", 6, 8_970),
        ("embedding", 1, 64_000_000),
        ("resnet50", 161, 25_557_032),
        ("gpt2", 148, 124_439_808),
    ],
)
def test_workloads_are_those_networks(name, tensors, elements):
    shapes = workloads.LISTS[name](0)
    assert (len(shapes), workloads.elements(shapes)) == (tensors, elements)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", TASKS)
def test_a_whole_run_has_each_case_of_a_section_once(name, device, quick):
    cases = list(TASKS[name].suite(quick, device))
    assert len({(case.section, case.name) for case in cases}) == len(cases)
    for case in cases:
        assert case.what in TASKS[name].WHAT
        assert case.workload in TASKS[name].WORKLOADS
        assert 0 < case.bytes <= 1 << 33


def test_bytes_are_those_of_the_plan():
    moved = {rule: StepCase(rule, "array", 1000).bytes / 1000 for rule in ("sgd", "momentum", "adam")}
    assert moved == {"sgd": 12, "momentum": 20, "adam": 28}
    assert TASKS["clip"].CASE("adam", "array", 1000).bytes == 32_000
    forward, backward = (TASKS["batchnorm"].CASE(w, "stage4-nchw") for w in ("forward", "backward"))
    assert (forward.bytes / forward.elements, backward.bytes / backward.elements) == (12, 20)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(
    ("task", "workload"),
    [("batchnorm", "stage4-nchw"), ("batchnorm", "stage4-nhwc"), ("dropout", "array")],
)
def test_layers_as_numpy_has_them_pass_their_checks_and_others_do_not(task, workload, dtype):
    for what in TASKS[task].WHAT:
        case = TASKS[task].CASE(what, workload, size=100_000, dtype=dtype)
        made = (competitors(TASKS[task])[name].make(case) for name in ("NumPy", "fastopt"))
        contestant = next(filter(None, made))  # a block is fastopt's and torch's alone
        case.check(contestant)
        for i in range(len(contestant.results())):
            with pytest.raises(WrongError):
                case.check(spoilt(contestant, i))


def spoilt(contestant, i):
    """The same with the last element of one result 3 % too large."""

    def results():
        arrays = [a.copy() for a in contestant.results()]
        arrays[i].reshape(-1)[-1] += arrays[i].dtype.type(abs(arrays[i]).max() * 0.03)
        return arrays

    return Contestant(contestant.run, results)


def test_who_is_wrong_is_left_out_and_fastopt_must_not_be():
    case = StepCase("adam", "array", 1000)
    frozen = SimpleNamespace(make=lambda case: Contestant(lambda: None, lambda: case.arrays()[0]))
    made, left_out = run.enter(case, {"fastopt": ours, "NumPy": numpy_, "frozen": frozen})
    assert list(made) == ["fastopt", "NumPy"]
    assert left_out["frozen"].startswith("wrong: 100.0% of the checked elements differ")
    with pytest.raises(WrongError):
        run.enter(case, {"fastopt": frozen})


def test_a_clip_that_is_left_out_is_seen():
    case = TASKS["clip"].CASE("momentum", "array", 1000)
    case.check(numpy_.make(case))
    with pytest.raises(WrongError):
        case.check(numpy_.make(StepCase("momentum", "array", 1000)))


def test_a_sample_has_every_place_of_a_vector_and_the_end():
    places = sample(np.arange(2**20, dtype=np.float32))
    assert set(places % 64) == set(range(64))
    assert set(range(2**20 - 4096, 2**20)) <= set(places)
    with pytest.raises(WrongError, match="differ"):
        compare(np.array([1.0, np.nan]), np.ones(2), 1.0)


# -- Timing and comparing --------------------------------------------------------------------------------


def test_a_slow_one_takes_fewer_turns_and_the_limit_takes_all(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("bench.measure.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("bench.measure.time.sleep", lambda seconds: None)

    def lasting(seconds):
        def call():
            now[0] += seconds

        return call

    lengths = {"limit": 0.5e-3, "fastopt": 1e-3, "slow": 0.2}
    turns = {name: Turn(lasting(seconds), None) for name, seconds in lengths.items()}
    times = interleave(turns, seconds=3.0, always={"limit", "fastopt"})
    taken = {name: int(np.isfinite(timing.rounds).sum()) for name, timing in times.items()}
    assert taken["limit"] == taken["fastopt"] > 100
    assert taken["slow"] == 5
    assert times["slow"].ratio_to(times["fastopt"]).median == pytest.approx(200)
    assert times["limit"].ratio_to(times["fastopt"]).spread == pytest.approx(0)


def recorded(*to_limit):
    entry = Entry(Quartiles(1, 1, 1), Quartiles(*to_limit), Quartiles(1, 1, 1))
    case = StepCase("adam", "array", 1000)
    return Record({}, [Row.of(case, {"fastopt": entry, "limit": entry}, {})])


@pytest.mark.parametrize(
    ("before", "after", "is_slower"),
    [
        ((1.00, 1.01, 1.02), (1.10, 1.11, 1.12), True),
        ((1.00, 1.01, 1.02), (1.00, 1.11, 1.12), False),  # the noise reaches as far
        ((1.00, 1.01, 1.02), (1.025, 1.03, 1.035), False),  # apart, but by 2 %
        ((1.10, 1.11, 1.12), (1.00, 1.01, 1.02), False),
    ],
)
def test_slower_is_what_lies_beyond_the_noise(before, after, is_slower):
    sentences = slower(recorded(*before), recorded(*after))
    assert bool(sentences) is is_slower
    assert slower(Record({}, []), recorded(*after)) == []


def test_a_record_reads_back_as_it_was_written(tmp_path):
    record = recorded(1.0, 1.5, 2.0)
    record.write(tmp_path / "record.json")
    assert Record.read(tmp_path / "record.json") == record


def test_a_case_travels_to_another_process():
    case = replace(StepCase("adam", "mlp"), cold=True, dtype="bfloat16")
    assert case.name == "step adam mlp bf16 cold"
    assert case.numpy_dtype.itemsize == 2
