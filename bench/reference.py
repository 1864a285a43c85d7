"""Modules of ``tests/`` that the benchmarks share with the tests, above all the float64 references. The
benchmarks run from a checkout, which contains the tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

_TESTS = Path(__file__).parents[1] / "tests"


def load_test_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench._tests_{name}", _TESTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = load_test_module("reference")
