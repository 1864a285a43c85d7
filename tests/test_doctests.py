"""The examples in the docstrings run. They are those of the package as it is installed, which the source tree
by itself is not: it has no compiled module."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import fastopt

MODULES = [f"fastopt.{m.name}" for m in pkgutil.iter_modules(fastopt.__path__) if m.name != "__main__"]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    public = [fastopt.functional, fastopt.optim]
    assert all(doctest.DocTestFinder().find(module) for module in public)
