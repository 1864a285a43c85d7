"""Types are there for whoever asks: at run time, as libraries of settings do, and for a type checker, which
sees what is misspelt."""

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
from fastopt._around import DEFAULTS, AdamOptions
from fastopt._hyper import Shared
from steps import CASES

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
def test_all_that_is_public_tells_its_types(value: Any) -> None:
    for part in [value, *(functions_of(value) if inspect.isclass(value) else ())]:
        hints = get_type_hints(part)
        if inspect.isfunction(part) and not part.__name__.startswith("_"):
            assert "return" in hints
        assert not [name for name, hint in hints.items() if isinstance(hint, str)]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="typing has Unpack from Python 3.11 on")
def test_options_by_keyword_are_those_of_around() -> None:
    from typing import Unpack

    for takes in (fastopt.SGD.__init__, fastopt.Adam.__init__, functional.adam_step):
        assert get_type_hints(takes)["around"] == Unpack[fastopt.Around]
    assert get_type_hints(fastopt.AdamW.__init__)["options"] == Unpack[AdamOptions]


def test_the_tables_of_options_agree() -> None:
    around, shared = get_type_hints(fastopt.Around), get_type_hints(Shared)
    assert around.keys() == DEFAULTS.keys()
    assert shared == {**around, "lr": float}
    adam, options = get_type_hints(fastopt.Adam.__init__), get_type_hints(AdamOptions)
    own = {name: hint for name, hint in options.items() if name not in around}
    assert own == {name: adam[name] for name in own}
    named = inspect.signature(fastopt.AdamW.__init__).parameters
    assert {*adam, *around} - {"around", "return"} == {*options, *named} - {"self", "options"}


@pytest.mark.parametrize("rule", CASES)
def test_every_attribute_is_declared(rule: str) -> None:
    """A type checker knows no others."""
    opt = CASES[rule].make(np.ones(3))
    found = {name for name in dir(opt) if not name.startswith("_") and not hasattr(type(opt), name)}
    assert found <= get_type_hints(type(opt)).keys()
    assert {*vars(opt)} <= get_type_hints(type(opt)).keys()


USES = """\
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


def test_a_type_checker_sees_what_is_misspelt(tmp_path: Path, monkeypatch: Any) -> None:
    api = pytest.importorskip("mypy.api", reason="needs mypy")
    file = tmp_path / "uses.py"
    file.write_text(USES + "\n".join(MISTAKES) + "\n")
    monkeypatch.setenv("MYPYPATH", os.fspath(SOURCE))
    monkeypatch.chdir(tmp_path)
    said, trouble, _ = api.run(["--strict", "--config-file=", f"--cache-dir={tmp_path}", file.name])
    first = USES.count("\n") + 1
    wrong = {int(line.split(":")[1]) for line in said.splitlines() if ": error:" in line}
    assert not trouble
    assert wrong == {first + i for i in range(len(MISTAKES))}, said
