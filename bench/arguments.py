"""What the command lines' words stand for; what makes no sense is said before anything is measured."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

from bench.case import DTYPES, SHORT
from bench.record import Record


def names(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def some_names(text: str) -> list[str]:
    if not (found := names(text)):
        raise argparse.ArgumentTypeError("it names nothing")
    return found


def dtypes(text: str) -> list[str]:
    chosen = [DTYPES.get(part, part) for part in some_names(text)]
    if unknown := set(chosen) - set(SHORT):
        raise argparse.ArgumentTypeError(f"no such dtype: {', '.join(sorted(unknown))}")
    return chosen


def sizes(text: str) -> list[int]:
    first, colon, last = text.partition(":")
    if not colon:
        return [_size(part) for part in some_names(text)]
    found = [_size(first)]
    while found[-1] * 2 <= _size(last):
        found.append(found[-1] * 2)
    return found


def _size(text: str) -> int:
    base, power, exponent = text.partition("**")
    try:
        size = int(base) ** int(exponent) if power else int(float(base))
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size")
    return size


def seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no time, expected a number above 0")
    return found


# ---- files ----


def record(text: str) -> Record:
    """What an earlier run has left."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    try:
        return Record.read(path)
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"{text} is no record that --json has written") from None


def new_file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir() or not _may_write(path):
        raise argparse.ArgumentTypeError(f"no file can be written at {text}")
    return path


def folder(text: str) -> Path:
    """One that is there, or can be made with those above it."""
    path = Path(text)
    there = next(p for p in (path, *path.parents) if p.exists())
    if not there.is_dir() or not _may_write(there):
        raise argparse.ArgumentTypeError(f"{text} is no folder to write to")
    return path


def _may_write(path: Path) -> bool:
    return os.access(path if path.exists() else path.parent, os.W_OK)
