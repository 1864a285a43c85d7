"""The benchmarks run: small sizes, every rule, with and without a clip, each result checked by the benchmark
itself. No timing is looked at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytest.importorskip("rich", reason="the benchmark's tables need rich")


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        (["--size", "5000"], 7),
        (["--size", "5000", "--clip"], 7),
        (["adam", "sgd", "--workload", "mlp", "--threads", "1", "--isa", "v2"], 2),
        (["adam", "--workload", "mlp", "--peers", ""], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_every_row_is_printed(options, rows):
    command = [sys.executable, "-m", "bench", "--seconds", "0.01", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert sum(line.count("%") > 1 for line in done.stdout.splitlines()) == rows


def test_an_unknown_rule_is_refused():
    command = [sys.executable, "-m", "bench", "adman"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no such rule: adman" in done.stderr
