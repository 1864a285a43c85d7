"""What the documentation writes passes mypy's strict checks in a program of a user."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import fastopt

IDIOMS = {
    "backward": """
y, saved = F.batch_norm_forward(x, gamma, beta)
dx, dgamma, dbeta = F.batch_norm_backward(y, saved)
opt.step([dx, dgamma, dbeta])
""",
    "backward with a residual": """
y, saved = F.batch_norm_forward(x, gamma, beta, residual=x)
dx, dgamma, dbeta, dresidual = F.batch_norm_backward(y, saved)
grads = F.batch_norm_backward(y, saved)
opt.step([grads.dx + grads.dresidual, grads.dgamma, grads.dbeta])
""",
    "backward in parts": """
moments = F.batch_norm_join([F.batch_norm_moments(x[:2]), F.batch_norm_moments(x[2:])])
y, saved = F.batch_norm_apply(x, moments, gamma, beta)
sums = F.batch_norm_backward_reduce(y, saved)
dx, dgamma, dbeta = F.batch_norm_backward_apply(y, saved, sums)
opt.step([dx, dgamma, dbeta])
""",
}
BEFORE = """
import numpy as np
import fastopt
from fastopt import functional as F

x, gamma, beta = np.arange(8.0).reshape(4, 2), np.ones(2), np.zeros(2)
opt = fastopt.SGD([x.copy(), gamma, beta], lr=0.1)
"""


@pytest.mark.parametrize("idiom", IDIOMS.values(), ids=IDIOMS)
def test_an_idiom_passes_mypy_and_runs(idiom, tmp_path, monkeypatch):
    api = pytest.importorskip("mypy.api", reason="mypy is not installed: pip install '.[dev]'")
    program = tmp_path / "program.py"
    program.write_text(BEFORE + idiom)
    monkeypatch.setenv("MYPYPATH", os.fspath(Path(fastopt.__file__).parents[1]))
    said, errors, code = api.run(
        ["--strict", "--config-file=", f"--cache-dir={tmp_path / 'cache'}", os.fspath(program)]
    )
    assert (said + errors, code) == ("Success: no issues found in 1 source file\n", 0)
    exec(program.read_text(), {"__name__": "program", "np": np})
