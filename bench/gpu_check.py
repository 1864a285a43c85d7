"""Build, test and measure fastopt on a machine with an NVIDIA GPU, nvcc and CuPy, and compare with the targets.

    python bench/gpu_check.py [--out DIR] [--minutes 8] [--only build,tests,bench]

No network is needed. ``gpu_check.json``, ``gpu_check.md`` and ``gpu_check.log`` are written to DIR after
every stage, so that an interrupted run leaves its results. A stage that fails or times out does not stop the
next one, unless it is the build. The exit status is 1 if a stage failed or timed out, and 2 if the run could
not start.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.util
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # instead of bench/, whose module names clash with those of other packages

from bench import device, gpu_targets, machine  # noqa: E402
from bench.gpu_plan import GROUPS, Stage, plan  # noqa: E402
from bench.record import Record, Row  # noqa: E402

# ---- running ----


class Check:
    """A run: its folders, its deadline, and its results so far."""

    def __init__(self, out: Path, work: Path, minutes: float, about: dict) -> None:
        self.out, self.work = out, work
        self.deadline = time.monotonic() + 60 * minutes
        self.results: dict = {"machine": about, "stages": [], "targets": [], "rows": [], "host": []}
        for folder in (out, work):
            folder.mkdir(parents=True, exist_ok=True)
        self.log = out / "gpu_check.log"
        self.log.write_text("")

    def run(self, stage: Stage) -> bool:
        """Run a stage and return whether it succeeded."""
        with self.log.open("a") as log:
            log.write(f"\n==== {stage.name}: {shlex.join(stage.command)}\n")
        begin, before = time.monotonic(), self.log.stat().st_size
        outcome = self._outcome(stage, min(stage.limit, self.deadline - begin))
        printed = self.log.read_bytes()[before:].decode(errors="replace")
        self.collect(stage)
        seconds, says = time.monotonic() - begin, stage.says(printed)
        self.results["stages"].append(
            {"name": stage.name, "outcome": outcome, "seconds": seconds, "says": says}
        )
        self.write()
        print(f"{stage.name}: {outcome} in {seconds:.0f} s {says}", flush=True)
        return outcome == "ok"

    def _outcome(self, stage: Stage, seconds: float) -> str:
        environment = self.environment(stage)
        if not shutil.which(stage.command[0], path=environment["PATH"]):
            return f"skipped: {stage.command[0]} not found"
        if self.deadline - time.monotonic() < 5:
            return "skipped: no time left"
        if stage.json:
            Path(stage.json).unlink(missing_ok=True)  # of an earlier run
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                stage.command,
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                status = process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # the process group: it and its children
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)  # a process that hangs in the driver cannot be killed
                return f"timed out after {seconds:.0f} s"
        return "ok" if status == 0 else f"failed with status {status}"

    def environment(self, stage: Stage) -> dict[str, str]:
        path = [str(self.work / "site"), os.environ.get("PYTHONPATH", "")]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "PATH": os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/cuda/bin"]),
            "PYTHONUNBUFFERED": "1",
            "FASTOPT_TEST_DEVICE": "cupy",
            "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count()),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # otherwise one test allocates most of the memory
            **({"FASTOPT_TEST_POOL": "off"} if stage.name == "sanitizer" else {}),
        }

    def collect(self, stage: Stage) -> None:
        """Add the figures that the stage has written, even if it timed out; an incomplete file is ignored."""
        with contextlib.suppress(ValueError):
            self._collect(stage)

    def _collect(self, stage: Stage) -> None:
        file = Path(stage.json)
        if not stage.json or not file.exists():
            return
        if stage.name == "bench:host":
            self.results["host"] = json.loads(file.read_text())
            return
        record = Record.read(file)
        self.results["machine"] |= {
            k: v for k, v in record.machine.items() if k not in ("command", "commit")
        }
        self.results["rows"] += [asdict(row) for row in record.rows]

    def write(self) -> None:
        rows = rows_of(self.results)
        self.results["targets"] = [asdict(v) for v in gpu_targets.judge(rows, self.results["host"])]
        (self.out / "gpu_check.json").write_text(json.dumps(self.results, indent=1) + "\n")
        (self.out / "gpu_check.md").write_text(gpu_targets.report(self.results, rows))


def rows_of(results: dict) -> list[Row]:
    return Record.of({"machine": {}, "rows": results["rows"], "memory": []}).rows


# ---- requirements ----


def gpu() -> tuple[str, str] | None:
    """Return the name and architecture of the first device, from the driver alone."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    number, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(number)) or not number.value:
        return None
    cuda.cuDeviceGetName(name, 256, 0)
    capability = ""
    for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
        cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, 0)
        capability += str(number.value)
    return name.value.decode(), capability


def missing_requirement(found: tuple[str, str] | None, chosen: list[str]) -> str:
    """Return why the check cannot start; an empty string if it can."""
    if found is None:
        return "no NVIDIA GPU found, or no driver for it"
    needed = {
        "cupy": "CuPy",
        "pytest": "pytest",
        "ml_dtypes": "ml_dtypes",
        "rich": "rich",
        "psutil": "psutil",
    }
    if "build" in chosen:
        needed |= {"pybind11": "pybind11", "scikit_build_core": "scikit-build-core"}
    missing = [name for module, name in needed.items() if not importlib.util.find_spec(module)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if "build" in chosen and not (shutil.which("nvcc") or Path("/usr/local/cuda/bin/nvcc").exists()):
        return "nvcc not found"
    return ""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="gpu_check", description=(__doc__ or "").partition("\n")[0])
    build = ROOT / "build"
    parser.add_argument("--out", type=Path, default=build / "gpu_check", help="folder for the results")
    parser.add_argument("--work", type=Path, default=build / "gpu_work", help="folder for the build")
    parser.add_argument("--minutes", type=float, default=8.0, help="time limit of the run")
    parser.add_argument(
        "--only", default=",".join(GROUPS), help=f"comma-separated stages, of {', '.join(GROUPS)}"
    )
    parser.add_argument("--commit", default="", help="the commit, if this is not a git checkout")
    args = parser.parse_args(argv)
    chosen = args.only.split(",")
    if unknown := set(chosen) - set(GROUPS):
        parser.error(f"--only: unknown {', '.join(sorted(unknown))} (choose from {', '.join(GROUPS)})")
    found = gpu()
    if reason := missing_requirement(found, chosen):
        print(f"gpu_check: {reason}", file=sys.stderr)
        return 2
    name, architecture = found
    about = {"gpu": name, "architecture": architecture, "commit": args.commit or machine.commit()}
    check = Check(args.out, args.work, args.minutes, about | device.smi())
    for stage in plan(args.work, architecture):
        if stage.belongs_to(chosen) and not check.run(stage) and stage.needed:
            break
    print((args.out / "gpu_check.md").read_text())
    return int(any(s["outcome"].startswith(("failed", "timed out")) for s in check.results["stages"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
