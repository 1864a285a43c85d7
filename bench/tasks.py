"""A folder is a task, a file in it a competitor: here they are found."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType

from bench.case import Case

OURS = "fastopt"


def tasks() -> dict[str, ModuleType]:
    """Every folder of ``bench/`` that is a package: its cases, and which of them a whole run
    measures."""
    found = pkgutil.iter_modules(import_module("bench").__path__)
    return {m.name: import_module(f"bench.{m.name}") for m in found if m.ispkg}


def taking_part(case: Case, everyone: dict[str, ModuleType]) -> dict[str, ModuleType]:
    """fastopt, and those with which the case is content."""
    return {n: m for n, m in everyone.items() if n == OURS or n.startswith(case.peers)}


def competitors(task: ModuleType) -> dict[str, ModuleType]:
    """By name, fastopt first; a file whose name begins with _ only helps others."""
    package = import_module(task.COMPETITORS)
    files = [m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]
    modules = [import_module(f"{package.__name__}.{name}") for name in files]
    return {m.NAME: m for m in sorted(modules, key=lambda m: m.NAME != OURS)}
