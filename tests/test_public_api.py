"""The public API is complete and documented: every rule has a class, a reference and a formula, every function
an example, and the package a version and a configuration.
"""

from __future__ import annotations

import doctest
import inspect
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, is_typeddict

import numpy as np
import pytest

import fastopt
from fastopt import _core
from fastopt import functional as F
from reference import REFERENCES

ROOT = Path(__file__).parents[1]
RULES = [
    rule for rule in _core.RULES if not rule.startswith("move")
]  # those only move bytes, for bench/
CLASSES = [
    value
    for value in vars(fastopt).values()
    if isinstance(value, type)
    and issubclass(value, fastopt.Optimizer)
    and value is not fastopt.Optimizer
]
FUNCTIONS = [getattr(F, name) for name in F.__all__]


def own_name(value: Any) -> str:
    return str(value.__name__)


def examples(value: Any) -> list[doctest.Example]:
    return doctest.DocTestParser().get_examples(value.__doc__ or "")


# ---- rules ----


def option_combinations(cls: type) -> Iterator[dict[str, Any]]:
    """Yield all combinations of the options that may determine the rule of an optimizer of this class."""
    options: dict[str, tuple[Any, ...]] = {}
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        annotation = str(parameter.annotation)
        if annotation == "bool":
            options[name] = (False, True)
        elif annotation.startswith("Literal"):
            options[name] = get_args(eval(annotation, {"Literal": Literal}))
        elif name == "momentum":
            options[name] = (0.0, 0.5)
    for values in itertools.product(*options.values()):
        yield dict(zip(options, values, strict=True))


def rules_of(cls: type) -> dict[str, fastopt.Optimizer]:
    """Return an optimizer of this class for each of its rules, by rule."""
    made = [cls(np.zeros(1), **options) for options in option_combinations(cls)]
    return {opt._rule: opt for opt in made}


STEPPED = [(cls, rule, opt) for cls in CLASSES for rule, opt in rules_of(cls).items()]


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_a_class(rule: str) -> None:
    assert [cls for cls, stepped, _ in STEPPED if stepped == rule]


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_a_reference(rule: str) -> None:
    assert callable(REFERENCES[rule])


@pytest.mark.parametrize(
    ("cls", "rule", "opt"), STEPPED, ids=lambda value: getattr(value, "__name__", "")
)
def test_state_names_match_the_rule_and_the_docstring(cls: type, rule: str, opt: Any) -> None:
    assert list(opt.state_dict()["state"]) == _core.RULES[rule]["states"]
    for state in _core.RULES[rule]["states"]:
        assert [array.shape for array in getattr(opt, state)] == [(1,)]
        described = " ".join(base.__doc__ or "" for base in cls.__mro__)
        assert re.search(rf"State: .*``{state}``", described)


# ---- documentation ----


@pytest.mark.parametrize("cls", CLASSES, ids=own_name)
def test_every_class_has_formula_source_and_example(cls: type) -> None:
    text = cls.__doc__ or ""
    assert ".. math::" in text
    assert re.search(r"Source: .*\d{4}", text)
    assert examples(cls)


@pytest.mark.parametrize("cls", [*CLASSES, fastopt.Dropout, fastopt.Generator], ids=own_name)
def test_every_argument_of_a_class_is_described(cls: type) -> None:
    described = " ".join(base.__doc__ or "" for base in cls.__mro__)
    listed = re.findall(r"^\s+(\*{0,2}\w+(?:, \w+)*):", described, re.MULTILINE)
    known = {name.strip("*") for names in listed for name in names.split(", ")}
    assert set(inspect.signature(cls).parameters) - {"options"} <= known


@pytest.mark.parametrize("function", FUNCTIONS, ids=own_name)
def test_every_function_has_an_example(function: Callable[..., Any]) -> None:
    assert examples(function)


def test_functional_has_a_step_for_every_class() -> None:
    assert {f"{cls.__name__.lower()}_step" for cls in CLASSES} - {"adamw_step"} <= set(F.__all__)


@pytest.mark.parametrize("name", fastopt.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    value = getattr(fastopt, name)
    assert inspect.getdoc(value)
    if isinstance(value, type):
        members = [m for key, m in vars(value).items() if not key.startswith("_")]
        for member in members:
            if inspect.isfunction(member) or isinstance(member, property):
                assert member.__doc__, f"{name}.{own_name(getattr(member, 'fget', member))}"


# ---- the package ----


def test_version_agrees_with_pyproject_and_changelog() -> None:
    project = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    latest = re.search(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert project
    assert latest
    assert fastopt.__version__ == project[1] == latest[1]


def run_python(code: list[str], isa: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FASTOPT_ISA": isa, "OMP_NUM_THREADS": "3"}
    return subprocess.run(
        [sys.executable, *code], env=environment, text=True, capture_output=True, check=False
    )


def test_configuration_printed_to_a_closed_pipe_gives_no_traceback() -> None:
    pipe = "import subprocess, sys; r, w = __import__('os').pipe(); __import__('os').close(r); "
    call = "print(subprocess.run([sys.executable, '-m', 'fastopt'], stdout=w, stderr=-1).stderr)"
    assert run_python(["-c", pipe + call], "").stdout.strip() == "b''"


@pytest.mark.parametrize("isa", _core.isas_supported())
def test_configuration_is_printed(isa: str) -> None:
    run = run_python(["-m", "fastopt"], isa)
    assert run.returncode == 0, run.stderr
    shown = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in run.stdout.splitlines())
    expected = {
        "fastopt": fastopt.__version__,
        "compiler": _core.COMPILER,
        "instruction sets built": ", ".join(_core.isas_built()),
        "instruction sets here": ", ".join(_core.isas_supported()),
        "instruction set used": isa,
        "threads": "3",
        "numpy": np.__version__,
    }
    assert shown.items() >= expected.items()
    assert {"CUDA", "ml_dtypes", "torch"} <= set(shown)


def test_configuration_lists_packages_of_the_array_extras() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    shown = fastopt._config.config()
    for extra in ("arrays", "cuda12", "cuda13"):
        found = re.search(rf'^{extra} = \["([\w-]+)', project, re.MULTILINE)
        assert found
        assert found[1] in shown


def test_unknown_instruction_set_raises_and_lists_valid_ones() -> None:
    run = run_python(["-c", "import fastopt"], "v9")
    assert run.returncode != 0
    message = run.stderr.splitlines()[-1]
    assert "'v9'" in message
    for isa in _core.isas_built():
        assert isa in message


# ---- defaults ----


def public_defaults() -> dict[str, dict[str, str]]:
    """Return the defaults of every public function and class, by module and name."""
    modules = {
        "fastopt": fastopt,
        **{name: getattr(fastopt, name) for name in ("checkpoint", "init", "penalties", "schedules")},
        "data": fastopt.data,
        "augment": fastopt.data.augment,
        "functional": F,
    }
    found = {}
    for module, content in modules.items():
        for name in content.__all__:
            value = getattr(content, name)
            if callable(value) and not is_typeddict(value):
                parameters = inspect.signature(value).parameters.values()
                defaults = {p.name: repr(p.default) for p in parameters if p.default is not p.empty}
                if defaults:
                    found[f"{module}.{name}"] = defaults
    return found


def test_defaults_match_defaults_json() -> None:
    """Every default is a convention that users rely on. To change one, also change ``defaults.json``."""
    assert public_defaults() == json.loads((ROOT / "tests/defaults.json").read_text())
