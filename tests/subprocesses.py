"""Run Python programs in a separate process, with this fastopt and a given environment."""

import os
import subprocess
import sys
from pathlib import Path

import fastopt

PACKAGES = str(Path(fastopt.__file__).parents[1])


def run(program: str, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, (PACKAGES, os.environ.get("PYTHONPATH"))))
    env = {k: v for k, v in os.environ.items() if k not in ("FASTOPT_ISA", "OMP_NUM_THREADS")}
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**env, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def output(program: str, **options: str) -> str:
    """Run a program and return its output. It must exit with status 0 and an empty stderr."""
    done = run(program, **options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()
