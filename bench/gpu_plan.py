"""The stages of gpu_check.py, in order of their importance."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
HOST_ONLY = ("shim", "races", "build", "ptx")  # the CUDA tests that need no device
GROUPS = ("build", "tests", "bench", "sanitizer")


def _layers(*stages: str) -> str:
    layouts = ("nchw", "nhwc")
    return "--workload " + ",".join(f"{stage}-{layout}" for stage in stages for layout in layouts)


BATCH_NORM = "batchnorm forward backward --dtype f32,bf16 --peers torch"
RULES = "adam adamw sgd momentum nesterov adagrad rmsprop"
# By stage: its time limit in seconds and its options. "host" runs bench.host_time.
BENCHES = {
    "replayed": (90, f"{BATCH_NORM} {_layers('stage1', 'stage2', 'stage3', 'stage4')} --replay"),
    "step": (110, f"step {RULES} --size 2**28 --peers torch_fused,torch_foreach,CuPy_kernel,optax"),
    "lists": (40, "step adam --workload resnet50,gpt2,mlp --peers torch,fastopt"),
    "clip": (60, "clip adamw --size 2**28 --peers torch"),
    "host": (30, ""),
    "batchnorm": (50, f"{BATCH_NORM} {_layers('stem')}"),
    "dropout": (40, "dropout --workload array --size 2**26 --dtype f32,bf16 --peers torch"),
}
IMPORT_CHECK = "from fastopt import _core; trouble = _core.cuda_trouble(); assert not trouble, trouble"
SANITIZED = (
    "(test_every_length and not everything) or test_every_layout or test_batch_norm or test_dropout"
)


@dataclass(frozen=True)
class Stage:
    name: str
    limit: float  # seconds
    command: list[str]
    says: Callable[[str], str] = lambda log: ""  # summarizes its output in a few words
    json: str = ""  # the file to which it writes its figures
    needed: bool = False  # whether all later stages need it

    def belongs_to(self, chosen: list[str]) -> bool:
        return self.name.partition(":")[0] in chosen


def plan(work: Path, architecture: str) -> list[Stage]:
    """Return all stages. ``work`` is the folder for the build and the figures."""
    python = [sys.executable, "-m"]
    install = [
        *python,
        *["pip", "install", "--no-build-isolation", "--no-deps", "--no-index", "--upgrade"],
    ]
    defined = {"FASTOPT_CUDA": "ON", "FASTOPT_CUDA_ARCHITECTURES": architecture}
    install += [f"-Ccmake.define.{name}={value}" for name, value in defined.items()]
    pytest = [
        *python,
        *["pytest", "-v", "-W", "default", "-p", "no:cacheprovider", "-rfE", "--tb=short"],
    ]
    parallel = ["-n", "4"] if importlib.util.find_spec("xdist") else []
    tests = sorted(p for p in TESTS.glob("test_cuda_*.py") if not p.stem.endswith(HOST_ONLY))
    tests.sort(key=lambda path: "device" not in path.name)
    sanitized = [TESTS / "test_cuda_steps.py", TESTS / "test_cuda_sweep.py"]
    sanitizer = ["compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "9"]
    return [
        Stage("build", 200, [*install, "--target", str(work / "site"), str(TESTS.parent)], needed=True),
        Stage("build:import", 60, [*python[:1], "-X", "faulthandler", "-c", IMPORT_CHECK], needed=True),
        Stage("tests", 120, [*pytest, *parallel, *map(str, tests)], outcomes),
        *(_bench(name, work, python) for name in BENCHES),
        Stage("sanitizer", 60, [*sanitizer, *pytest, "-k", SANITIZED, *map(str, sanitized)], outcomes),
    ]


def _bench(name: str, work: Path, python: list[str]) -> Stage:
    limit, options = BENCHES[name]
    module = ["bench.host_time"] if name == "host" else ["bench", "--seconds", "0.5"]
    given = [option.replace("_", " ") for option in options.split()]
    file = str(work / f"{name}.json")
    command = [*python, *module, *given, "--device", "cuda", "--json", file]
    return Stage(f"bench:{name}", limit, command, json=file)


_OUTCOME = re.compile(r"\b(PASSED|FAILED|ERROR|SKIPPED)\b(?! tests/.* - )")


def outcomes(log: str) -> str:
    """Summarize pytest's output. Every reported test is counted, because a run that times out has no last
    line."""
    words = [w for line in log.splitlines() if "::" in line for w in _OUTCOME.findall(line)[:1]]
    counts = [f"{n} {word.lower()}" for word, n in Counter(words).items()]
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+) - ", log, re.MULTILINE)[:5]
    return ", ".join(counts + [f"first {', '.join(failed)}"] * bool(failed)) or "no tests ran"
