"""The examples in the docstrings run. They are those of the package as it is installed, which the source tree
by itself is not: it has no compiled module."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import fastopt

MODULES = [m.name for m in pkgutil.walk_packages(fastopt.__path__, "fastopt.")]
MODULES.remove("fastopt.__main__")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    modules = ["functional", "optim", "init", "schedules", "penalties", "data"]
    public = [getattr(fastopt, name) for name in modules]
    assert all(doctest.DocTestFinder().find(module) for module in public)
