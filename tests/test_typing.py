"""Type hints are available at run time, for example to configuration libraries, and to type checkers, which
detect misspelled names."""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

import fastopt
from fastopt import checkpoint, data, functional, init, penalties, schedules
from fastopt._hyperparams import HyperParams
from fastopt._options import DEFAULTS, AdamOptions
from optimizers_table import CASES

SOURCE = Path(__file__).parents[1] / "python"
MODULES = (fastopt, functional, init, schedules, penalties, checkpoint, data, data.augment)
PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in MODULES
    for name in module.__all__
    if not inspect.ismodule(getattr(module, name))
}


def functions_of(cls: type) -> list[Any]:
    found = [getattr(value, "fget", value) for value in vars(cls).values()]
    return [value for value in found if inspect.isfunction(value)]


@pytest.mark.parametrize("value", PUBLIC.values(), ids=PUBLIC)
def test_public_api_is_typed(value: Any) -> None:
    for part in [value, *(functions_of(value) if inspect.isclass(value) else ())]:
        hints = get_type_hints(part)
        if inspect.isfunction(part) and not part.__name__.startswith("_"):
            assert "return" in hints
        assert not [name for name, hint in hints.items() if isinstance(hint, str)]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="typing has Unpack from Python 3.11 on")
def test_keyword_options_are_typed() -> None:
    from typing import Unpack

    for takes in (fastopt.SGD.__init__, fastopt.Adam.__init__, functional.adam_step):
        assert get_type_hints(takes)["options"] == Unpack[fastopt.StepOptions]
    assert get_type_hints(fastopt.AdamW.__init__)["options"] == Unpack[AdamOptions]


def test_option_types_agree() -> None:
    options, shared = get_type_hints(fastopt.StepOptions), get_type_hints(HyperParams)
    assert options.keys() == DEFAULTS.keys()
    assert shared == {**options, "lr": float}
    adam, adam_options = get_type_hints(fastopt.Adam.__init__), get_type_hints(AdamOptions)
    own = {name: hint for name, hint in adam_options.items() if name not in options}
    assert own == {name: adam[name] for name in own}
    named = inspect.signature(fastopt.AdamW.__init__).parameters
    assert {*adam, *options} - {"options", "return"} == {*adam_options, *named} - {"self", "options"}


@pytest.mark.parametrize("rule", CASES)
def test_every_attribute_is_declared(rule: str) -> None:
    """A type checker accepts no others."""
    opt = CASES[rule].make(np.ones(3))
    found = {name for name in dir(opt) if not name.startswith("_") and not hasattr(type(opt), name)}
    assert found <= get_type_hints(type(opt)).keys()
    assert {*vars(opt)} <= get_type_hints(type(opt)).keys()


# ---- mypy ----

# Idioms from the documentation.
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
VALID_USES = """\
import numpy as np
import fastopt

w = np.ones(3)
opt = fastopt.Adam(w, lr=0.1, clip_norm=1.0, on_nonfinite="skip")
opt.lr, opt.betas, opt.on_nonfinite = opt.lr / 2, (0.5, 0.5), "raise"
opt.groups[0].lr = opt.beta1
opt.m[0][:] = opt.step_count
fastopt.AdamW(w, amsgrad=True, l1=0.1, weight_decay=0.0)
"""
MISTAKES = (
    'fastopt.SGD(w, on_nonfinite="skipped")',
    "fastopt.SGD(w, clipnorm=1.0)",
    "fastopt.AdamW(w, amsgrd=True)",
    'fastopt.AdamW(w, eps_mode="inside")',
    'fastopt.Nesterov(w, form="ahead")',
    "opt.lrr = 0.1",
    "opt.beta",
    'opt.on_nonfinite = "stop"',
)


def programs() -> dict[str, str]:
    """Return the programs by name. The last one ends with one mistake per line."""
    return {name.replace(" ", "_"): BEFORE + idiom for name, idiom in IDIOMS.items()} | {
        "mistakes": VALID_USES + "\n".join(MISTAKES) + "\n"
    }


@pytest.fixture(scope="module")
def error_lines(tmp_path_factory: Any) -> dict[str, set[int]]:
    """Return the line numbers of errors that mypy --strict reports in each program."""
    api = pytest.importorskip("mypy.api", reason="mypy is not installed: pip install '.[dev]'")
    folder = tmp_path_factory.mktemp("programs")
    for name, text in programs().items():
        (folder / f"{name}.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYPYPATH", os.fspath(SOURCE))
        patch.chdir(folder)
        files = [f"{name}.py" for name in programs()]
        said, trouble, _ = api.run(["--strict", "--config-file=", "--cache-dir=cache", *files])
    assert not trouble
    found: dict[str, set[int]] = {name: set() for name in programs()}
    for line in said.splitlines():
        if ": error:" in line:
            file, number, *_ = line.split(":")
            found[file.removesuffix(".py")].add(int(number))
    return found


@pytest.mark.parametrize("name", [name for name in programs() if name != "mistakes"])
def test_mypy_accepts_documented_idioms(error_lines: dict[str, set[int]], name: str) -> None:
    assert not error_lines[name]
    exec(programs()[name], {"__name__": "program"})


def test_mypy_rejects_misspelled_names(error_lines: dict[str, set[int]]) -> None:
    first = VALID_USES.count("\n") + 1
    assert error_lines["mistakes"] == {first + i for i in range(len(MISTAKES))}
