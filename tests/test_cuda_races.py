"""The CUDA engine with the threads of a block as real threads, under ThreadSanitizer: a barrier that is
missing from a kernel is a data race, and is reported. There is one small call of each kind of kernel, since a
block takes milliseconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

SETUP = """
import ctypes
import numpy as np
import fastopt
from fastopt import functional as F
from cuda_shim.build import build
from devices import Shim

shim = Shim(ctypes.CDLL(str(build(["-fsanitize=thread", "-g1"], "threads"))))
shim.use()
shim.hold(HOLD)
rng = np.random.default_rng(0)
def make(*shape, dtype=np.float32):
    host = rng.normal(size=shape).astype(dtype)
    return host, shim.array(host)
def same(host, there):
    assert shim.host(there).tobytes() == host.tobytes()
def batch_norm(*shape, **options):
    (x, x_there), (dy, dy_there) = make(*shape), make(*shape)
    y, saved = F.batch_norm_forward(x, **options)
    y_there, saved_there = F.batch_norm_forward(x_there, **options)
    same(y, y_there)
    same(F.batch_norm_backward(dy, saved).dx, F.batch_norm_backward(dy_there, saved_there).dx)
"""

CALLS = {
    "a step of a list, clipped or not": """
arrays = [make(n) for n in (3, 5000)]
hosts, theres = zip(*arrays)
grads = [make(n) for n in (3, 5000)]
for params, side in ((list(hosts), 0), (list(theres), 1)):
    opt = fastopt.Adam(params, clip_norm=0.5, on_nonfinite="skip")
    opt.step([g[side] for g in grads])
    fastopt.Adam(params).step([g[side] for g in grads])
for h, t in arrays:
    same(h, t)
""",
    "a norm of several groups": """
host, there = make(70_001)
assert F.global_norm([there]) == F.global_norm([host])
""",
    "a norm of doubles out of range": """
host = rng.normal(size=5000) * 1e200
assert F.global_norm([shim.array(host)]) == F.global_norm([host])
""",
    "BatchNorm, planes": """
batch_norm(3, 5, 40, 37)
batch_norm(3, 5, 40, 37, activation="relu")
""",
    "BatchNorm, rows of whole vectors": "batch_norm(300, 8)",
    "BatchNorm, planes in clusters": """
shim.hold(20_000)
batch_norm(5, 1, 40, 40, activation="relu")
assert shim.counts()["clustered"] == 1
""",
    "BatchNorm, rows": 'batch_norm(300, 33, activation="relu")',
    "dropout": """
x, x_there = make(2500)
same(F.dropout_forward(x, 0.5, seed=1)[0], F.dropout_forward(x_there, 0.5, seed=1)[0])
""",
}


def library(name: str) -> str | None:
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        return None
    asked = [compiler, f"-print-file-name=lib{name}.so"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return found if Path(found).is_absolute() else None


def run(code: str, **more: str) -> subprocess.CompletedProcess[str]:
    loaded = [library(name) for name in ("tsan", "stdc++")]
    if None in loaded:
        pytest.skip("needs a C++ compiler with ThreadSanitizer")
    # ThreadSanitizer sees nothing of Python and its libraries but their locks, and does not know OpenMP's
    # threads.
    env = os.environ | {
        "LD_PRELOAD": ":".join(filter(None, loaded)),
        "TSAN_OPTIONS": "exitcode=66:report_signal_unsafe=0",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]),
        **more,
    }
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )


PASSES = [(c, 0) for c in CALLS if "clusters" not in c]
HELD = [(c, 2**40) for c in CALLS if "BatchNorm" in c]


@pytest.mark.parametrize(("call", "hold"), PASSES + HELD)
def test_kernels_have_no_data_races(call: str, hold: int) -> None:
    """Without shared memory in which BatchNorm can hold channels, and with enough of it."""
    done = run(f"HOLD = {hold}\n{SETUP}{CALLS[call]}")
    assert "ThreadSanitizer" not in done.stderr, done.stderr[:4000]
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("call", ["BatchNorm, planes", "BatchNorm, rows"])
def test_blocks_do_not_depend_on_earlier_blocks(call: str) -> None:
    """The shim runs one block after another, here from the last to the first."""
    done = run(f"HOLD = 0\n{SETUP}{CALLS[call]}", SHIM_BACKWARDS="1")
    assert done.returncode == 0, done.stderr[-2000:]
