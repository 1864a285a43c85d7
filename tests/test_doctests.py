"""The examples in the docstrings run. They are those of the installed package, since the source tree by
itself has no compiled module."""

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
