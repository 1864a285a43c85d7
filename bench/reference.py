"""What the tests have, the float64 references above all. It stands once, in ``tests/``, for tests and
benchmarks alike; a benchmark is run from a checkout, where the tests are."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

_TESTS = Path(__file__).parents[1] / "tests"


def of_tests(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench._tests_{name}", _TESTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = of_tests("reference")
