"""The benchmarks run with small sizes, for every rule, dtype and installed competitor. They check every result
themselves. No timing is tested."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fastopt import _core

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
for package in ("rich", "psutil", "matplotlib"):
    pytest.importorskip(package, reason="the benchmarks need it")

sys.path.append(str(ROOT))

from bench import cli, memory, plan, plot, run, threads, workloads  # noqa: E402
from bench.case import Competitor, WrongError, compare, sample  # noqa: E402
from bench.measure import Quartiles, Turn, interleave  # noqa: E402
from bench.record import Entry, Record, Row, pairs, slower  # noqa: E402
from bench.report import noisy_rows  # noqa: E402
from bench.step import StepCase, numpy_, ours  # noqa: E402
from bench.tables import markdown  # noqa: E402
from bench.tasks import competitors, tasks  # noqa: E402
from rich.console import Console  # noqa: E402

TASKS = tasks()


def bench(*options, rc=0, module="bench", code=None):
    program = ["-m", module] if code is None else ["-c", code]
    command = [sys.executable, *program, *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == rc, done.stderr
    return done


# -- The command line ------------------------------------------------------------------------------------

COMMANDS = {  # commands and their numbers of rows; the last one confines the process to one CPU
    "step --size 5000": 7,
    "step sgd adam --size 5000 --dtype f16,bf16,f64": 6,
    "clip --workload mlp --dtype f16,bf16,f32,f64": 8,
    "step adam sgd --size 2**10:4096 --cold --peers=": 6,
    "step --workload mlp --threads 1 --isa v2 --peers num": 7,
}
# One process for all commands, because importing torch, JAX and numba takes longer than the commands. No
# timing is tested, so calls are neither repeated nor separated by pauses.
IN_ONE_PROCESS = """
import json, sys
from bench.threads import confine
confine([])
from bench import measure
from bench.cli import main
measure.WARMUP_S = measure.PAUSE_S = measure.Turn.MIN_TURN_S = 0.0
measure.MIN_ROUNDS = 2
for argv in json.loads(sys.argv[1]):
    print("status", main(argv, confine(argv)))
"""


def bench_in_one_process(*commands):
    """Run several commands. Returns what each has printed, with its status in the last line."""
    done = bench(json.dumps([[*map(str, command)] for command in commands]), code=IN_ONE_PROCESS)
    printed = re.findall(r".*?status \d+\n", done.stdout, re.DOTALL)
    assert len(printed) == len(commands)
    return printed


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    files = {command: folder / f"{i}.json" for i, command in enumerate(COMMANDS)}
    commands = [[*c.split(), "--seconds", 0.01, "--json", file] for c, file in files.items()]
    for printed in bench_in_one_process(*commands):
        assert printed.endswith("status 0\n")
    return {command: Record.read(file) for command, file in files.items()}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_case_is_checked_and_recorded(command, records):
    rows = records[command].rows
    assert len({row.name for row in rows}) == len(rows) == COMMANDS[command]
    for row in rows:
        assert row.rate("fastopt") > 0
        assert row.rate("limit") > 0
        assert all(name.startswith("torch") or name == "optax" for name in row.left_out), row.left_out
    if "--threads 1" in command:
        assert records[command].machine["threads"] == 1


def test_pictures_and_a_comparison_with_an_earlier_run(tmp_path):
    file = tmp_path / "old.json"
    options = ["step", "adam", "--seconds", 0.01, "--peers", "NumPy"]
    sizes = [*options, "--size", "1000,2000,4000"]
    bench_in_one_process(
        [*sizes, "--plot", tmp_path, "--json", file],
        [*options, "--workload", "mlp", "--plot", tmp_path],
        [*sizes, "--dtype", "f64", "--plot", tmp_path / "no roofline"],
    )
    assert [path.name for path in (tmp_path / "no roofline").iterdir()] == [
        "growth-step-adam-float64.png"
    ]
    pictures = {path.stem for path in tmp_path.glob("*.png")}
    assert pictures == {"growth-step-adam-float32", "workloads-step-adam-float32", "roofline"}
    record = json.loads(file.read_text())
    for row in record["rows"]:  # an earlier run that took a thousandth of the time
        row["entries"]["fastopt"]["to_limit"] = [
            1e-3 * q for q in row["entries"]["fastopt"]["to_limit"]
        ]
    file.write_text(json.dumps(record))
    slow, other = bench_in_one_process(
        *([*options, "--size", size, "--compare", file] for size in (2000, 3000))
    )
    assert "step adam array 2,000 f32: " in slow
    assert slow.endswith("status 1\n")
    assert other.endswith("nothing to compare: no case is in both records\nstatus 2\n")


def test_memory_is_measured_in_a_process_for_each_competitor(tmp_path):
    file = tmp_path / "memory.json"
    options = ["clip", "adamw", "--memory", "--size", 2**22, "--peers", "NumPy", "--json", file]
    bench(*options)
    [measured] = Record.read(file).memory
    array = 4 << 22
    assert measured.working_set == 4 * array
    assert measured.extra["fastopt"] < array / 8
    assert measured.extra["NumPy"] > array / 2


def test_memory_on_a_device_is_what_it_has_allocated(monkeypatch):
    left = [10**6]
    for name in ("available_memory", "free_memory"):
        monkeypatch.setattr(f"bench.device.{name}", lambda: left[0])

    class Keeper:
        """Allocates its arrays and, in its first step, 7 more bytes, which it keeps."""

        @staticmethod
        def make(case):
            left[0] -= case.working_set
            steps = []

            def run():
                left[0] -= 0 if steps else 7
                steps.append(1)

            return Competitor(run, lambda: [])

    case = StepCase("adam", "array", 1000, device="cuda")
    assert memory.extra(case, TASKS["step"], Keeper) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["step", "adman"], "what: invalid choice: 'adman' (choose from sgd, momentum"),
        (
            ["step", "--workload", "alexnet"],
            "--workload: invalid choice: 'alexnet' (choose from array,",
        ),
        (["stop"], "invalid choice: 'stop'"),
        (["--device", "cuda"], f"--device cuda: {_core.cuda_trouble()}"),
        (["step", "--dtype", "f8"], "unknown dtype: f8"),
        (["step", "--size", "0"], "invalid size '0', expected one such as 1e7 or 2**20"),
        (["step", "--size", "2**10:many"], "invalid size 'many'"),
        (["step", "--dtype", ""], "argument --dtype: expected at least one value"),
        (["step", "--size", ""], "argument --size: expected at least one value"),
        (["step", "--workload", ","], "argument --workload: expected at least one value"),
        (["--workload", "nope"], "--workload requires a task; the full suite has its own settings"),
        (["--dtype", "f16"], "--dtype requires a task"),
        (["--isa", "v9"], "argument --isa: invalid choice: 'v9'"),
        (["--seconds", "nan"], "argument --seconds: invalid time 'nan', expected a finite number > 0"),
        (["--seconds", "-1"], "argument --seconds: invalid time '-1'"),
        (["--seconds", "soon"], "argument --seconds: invalid time 'soon'"),
        (["--json", "/none/x.json"], "argument --json: cannot write to /none/x.json"),
        (["--json", "README.md/x.json"], "argument --json: cannot write to README.md/x.json"),
        (["--plot", "README.md"], "argument --plot: README.md is not a writable folder"),
        (["--plot", "README.md/x"], "argument --plot: README.md/x is not a writable folder"),
        (["--compare", "gone.json"], "--compare: file gone.json does not exist"),
        (["--compare", "README.md"], "--compare: README.md is not a record written by --json"),
        (["--compare", "tests/fingerprints.json"], "tests/fingerprints.json is not a record"),
        (["--threads", "-1"], "--threads must be >= 0, got -1"),
        (["--memory"], "--memory requires a task"),
        (
            ["step", "--peers", "torch,nosuch"],
            "no competitor's name begins with 'nosuch' (choose from CuPy,",
        ),
        (["dropout", "--peers", "numba"], "--peers: no competitor's name begins with 'numba'"),
        (["step", "--size", "2**10:2**9"], "empty range '2**10:2**9', expected the smaller size first"),
        (["step", "--size", "2**10:"], "invalid size ''"),
        (
            ["step", "--size", "2**9999999999"],
            "size 2**9999999999 is too large, expected at most 2**48",
        ),
        (["step", "--size", "1e200"], "size 1e200 is too large"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_invalid_arguments_are_refused_in_a_sentence(options, message, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as refused:
        cli.parse(options, TASKS)
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command_refuses_invalid_arguments_with_status_2():
    assert "--threads must be >= 0, got -1" in bench("--threads", -1, rc=2).stderr


def test_more_threads_than_cpus_are_refused_and_openmps_number_is_limited(monkeypatch, capsys):
    confined = []
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda process: {2, 5, 7})
    monkeypatch.setattr(threads.os, "sched_setaffinity", lambda process, cpus: confined.append(cpus))
    monkeypatch.setattr(threads.os, "environ", {"OMP_NUM_THREADS": "8,2"})
    assert [threads.confine(options) for options in ([], ["--threads", "2"])] == [3, 2]
    assert confined == [[2, 5, 7], [2, 5]]
    assert threads.os.environ["NUMBA_NUM_THREADS"] == "2"
    with pytest.raises(SystemExit) as refused:
        threads.confine(["step", "--threads=4"])
    assert refused.value.code == 2
    assert "--threads is 4, but this process may use only 3 CPUs" in capsys.readouterr().err


def test_cases_that_are_all_too_large_are_an_error(capsys, monkeypatch):
    monkeypatch.setattr(run, "fits", lambda case: False)
    args = cli.parse(["step", "adam", "adam", "--size", "1000", "--peers", ""], TASKS)
    with pytest.raises(SystemExit) as refused:
        plan.plan(args, TASKS, Console())
    assert refused.value.code == 2
    printed = capsys.readouterr().out
    assert printed.count("step adam array 1,000 f32") == 1
    assert printed.endswith("nothing to measure\n")


def test_a_missing_package_is_named():
    code = (
        "import sys; sys.modules['psutil'] = None; sys.argv = ['bench', 'step']; import bench.__main__"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "python -m bench needs psutil: pip install '.[bench]'\n"


@pytest.mark.parametrize("module", ["bench", "bench.plot", "bench.engines"])
def test_help_is_printed(module):
    done = bench("--help", module=module)
    assert done.stdout.startswith(f"usage: python -m {module} ")


def test_a_stored_record_is_drawn(tmp_path, capsys, monkeypatch):
    record = RESULTS / "clip-xeon-f81e1ad.json"
    drawn = bench(record, tmp_path / "new" / "pictures", module="bench.plot").stdout.split()
    assert drawn == [str(tmp_path / "new" / "pictures" / "roofline.png")]
    assert Path(drawn[0]).exists()
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as refused:
        plot.main(["README.md", str(tmp_path)])
    assert refused.value.code == 2
    assert "is not a record" in capsys.readouterr().err


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
def test_workloads_have_the_sizes_of_their_networks(name, tensors, elements):
    shapes = workloads.LISTS[name](0)
    assert (len(shapes), workloads.elements(shapes)) == (tensors, elements)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", TASKS)
def test_the_full_suite_has_each_case_of_a_section_once(name, device, quick):
    cases = list(TASKS[name].suite(quick, device))
    assert len({(case.section, case.name) for case in cases}) == len(cases)
    for case in cases:
        assert case.what in TASKS[name].WHAT
        assert case.workload in TASKS[name].WORKLOADS
        assert 0 < case.bytes <= 1 << 33


def test_bytes_per_element():
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
def test_correct_layers_pass_their_checks_and_wrong_ones_do_not(task, workload, dtype):
    for what in TASKS[task].WHAT:
        case = TASKS[task].CASE(what, workload, size=100_000, dtype=dtype)
        made = (competitors(TASKS[task])[name].make(case) for name in ("NumPy", "fastopt"))
        competitor = next(filter(None, made))  # NumPy has no competitor for "block"
        case.check(competitor)
        for i in range(len(competitor.results())):
            with pytest.raises(WrongError):
                case.check(spoilt(competitor, i))


@pytest.mark.parametrize("workload", ["stage4-nchw", "stage4-nhwc", "tiny-nc"])
@pytest.mark.parametrize("what", ["forward", "evaluate"])
def test_torch_writes_into_the_same_memory_at_every_call(what, workload):
    pytest.importorskip("torch")
    module = competitors(TASKS["batchnorm"])["torch out"]
    for dtype in ("float32", "bfloat16"):
        case = TASKS["batchnorm"].CASE(what, workload, dtype=dtype)
        competitor = module.make(case)
        case.check(competitor)
        before = competitor.results()[0]
        place, want = before.__array_interface__["data"], before.copy()
        before.view(np.uint8)[...] = 0
        competitor.run()
        after = competitor.results()[0]
        assert after.__array_interface__["data"] == place
        assert after.tobytes() == want.tobytes()
    assert module.make(TASKS["batchnorm"].CASE("backward", workload)) is None


def spoilt(competitor, i):
    """Return the competitor with the last element of one result 3 % too large."""

    def results():
        arrays = [a.copy() for a in competitor.results()]
        arrays[i].reshape(-1)[-1] += arrays[i].dtype.type(abs(arrays[i]).max() * 0.03)
        return arrays

    return Competitor(competitor.run, results)


def test_wrong_competitors_are_left_out_and_a_wrong_fastopt_raises():
    case = StepCase("adam", "array", 1000)
    frozen = SimpleNamespace(make=lambda case: Competitor(lambda: None, lambda: case.arrays()[0]))
    made, left_out = run.prepare(case, {"fastopt": ours, "NumPy": numpy_, "frozen": frozen})
    assert list(made) == ["fastopt", "NumPy"]
    assert left_out["frozen"].startswith("wrong: 100.0% of the checked elements differ")
    with pytest.raises(WrongError):
        run.prepare(case, {"fastopt": frozen})


def test_a_missing_clip_is_detected():
    case = TASKS["clip"].CASE("momentum", "array", 1000)
    case.check(numpy_.make(case))
    with pytest.raises(WrongError):
        case.check(numpy_.make(StepCase("momentum", "array", 1000)))


def test_sample_covers_all_vector_lanes_and_the_end():
    places = sample(np.arange(2**20, dtype=np.float32))
    assert set(places % 64) == set(range(64))
    assert set(range(2**20 - 4096, 2**20)) <= set(places)
    with pytest.raises(WrongError, match="differ"):
        compare(np.array([1.0, np.nan]), np.ones(2), 1.0)


def test_a_markdown_table_escapes_bars():
    assert markdown(("a", "b"), [("x|y", "1")]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"


# -- Timing and comparing --------------------------------------------------------------------------------


def test_a_slow_competitor_takes_fewer_turns_and_the_limit_takes_all(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("bench.measure.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("bench.measure.time.sleep", lambda seconds: None)

    def lasting(seconds):
        def call():
            now[0] += seconds

        return call

    lengths = {"limit": 0.5e-3, "fastopt": 1e-3, "slow": 0.2}
    turns = {name: Turn(lasting(seconds), None) for name, seconds in lengths.items()}
    times = interleave(turns, seconds=3.0, every_round={"limit", "fastopt"})
    taken = {name: int(np.isfinite(timing.rounds).sum()) for name, timing in times.items()}
    assert taken["limit"] == taken["fastopt"] > 100
    assert taken["slow"] == 5
    assert times["slow"].ratio_to(times["fastopt"]).median == pytest.approx(200)
    assert times["limit"].ratio_to(times["fastopt"]).spread == pytest.approx(0)


def recorded(*to_limit, section=""):
    entry = Entry(Quartiles(1, 1, 1), Quartiles(*to_limit), Quartiles(1, 1, 1))
    case = StepCase("adam", "array", 1000, section=section)
    return Record({}, [Row.of(case, {"fastopt": entry, "limit": entry}, {})])


@pytest.mark.parametrize(
    ("before", "after", "is_slower"),
    [
        ((1.00, 1.01, 1.02), (1.10, 1.11, 1.12), True),
        ((1.00, 1.01, 1.02), (1.00, 1.11, 1.12), False),  # the quartiles overlap
        ((1.00, 1.01, 1.02), (1.025, 1.03, 1.035), False),  # no overlap, but only 2 %
        ((1.10, 1.11, 1.12), (1.00, 1.01, 1.02), False),
    ],
)
def test_slower_means_beyond_the_noise(before, after, is_slower):
    sentences = slower(recorded(*before), recorded(*after))
    assert bool(sentences) is is_slower
    assert slower(Record({}, []), recorded(*after)) == []


def test_a_case_of_two_sections_is_compared_with_that_of_its_own_section():
    fast, slow = (
        recorded(1.00, 1.01, 1.02, section="rules"),
        recorded(1.20, 1.21, 1.22, section="growth"),
    )
    both = Record({}, [*fast.rows, *slow.rows])
    swapped = Record({}, [*slow.rows, *fast.rows])
    assert slower(both, both) == slower(both, swapped) == slower(swapped, both) == []
    assert len(slower(fast, slow)) == 1  # no such section: compared with the case of the same name
    assert pairs(both, recorded(1.0, 1.0, 1.0)) != []


def stored(file):
    return Record.of({"memory": [], **json.loads(file.read_text())})


RECORDS = {file.stem: stored(file) for file in sorted(RESULTS.glob("*.json"))}


@pytest.mark.parametrize("name", RECORDS)
def test_no_stored_record_is_slower_than_itself(name):
    record = RECORDS[name]
    assert record.rows
    assert len(pairs(record, record)) == len(record.rows)
    assert slower(record, record) == []


def test_the_number_of_noisy_rows_of_each_stored_record_is_documented():
    text = (RESULTS / "README.md").read_text()
    pattern = r"^\| `([\w-]+)`.*\| (\d+ of \d+) \| (\d+ of \d+) \|$"
    documented = {
        f"{name}-{machine}": noisy
        for name, *both in re.findall(pattern, text, re.MULTILINE)
        for machine, noisy in zip(("xeon-f81e1ad", "epyc-3bbc62e"), both, strict=True)
    }
    documented |= re.findall(r"^\| `(gpu_check-[\w-]+)`.*\| (\d+ of \d+) \|$", text, re.MULTILINE)
    documented |= re.findall(r"`(rows-[\w-]+)` \((\d+ of \d+) rows are noisy\)", text)
    assert documented == {
        name: f"{len(noisy_rows(record.rows))} of {len(record.rows)}"
        for name, record in RECORDS.items()
    }


def test_a_record_reads_back_as_it_was_written(tmp_path):
    record = recorded(1.0, 1.5, 2.0)
    record.write(tmp_path / "record.json")
    assert Record.read(tmp_path / "record.json") == record


def test_a_case_has_a_name():
    case = replace(StepCase("adam", "mlp"), cold=True, dtype="bfloat16")
    assert case.name == "step adam mlp bf16 cold"
    assert case.numpy_dtype.itemsize == 2
