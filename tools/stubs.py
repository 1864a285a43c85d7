"""Write the type stub of the compiled module; with ``--check``, fail if the committed one is out of date.

    python tools/stubs.py            # after a change in csrc/bind/
    python tools/stubs.py --check

fastopt must be installed or on PYTHONPATH; needs pybind11-stubgen and ruff.
"""

from __future__ import annotations

import argparse
import difflib
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fastopt import _core

STUB = Path(__file__).parents[1] / "python" / "fastopt" / "_core.pyi"


def type_of(values: list[Any]) -> str:
    """Return the common type of the values with its parameters, such as ``dict[str, list[str]]``, where stubgen
    writes ``dict``."""
    (kind,) = {type(value) for value in values}
    if kind is list:
        return f"list[{type_of([item for value in values for item in value])}]"
    if kind is dict:
        keys, items = zip(*(pair for value in values for pair in value.items()), strict=True)
        return f"dict[{type_of(keys)}, {type_of(items)}]"
    return str(kind.__name__)


def generate() -> str:
    with tempfile.TemporaryDirectory() as folder:
        stubgen = [sys.executable, "-m", "pybind11_stubgen", "--exit-code", "-o", folder]
        subprocess.run([*stubgen, "fastopt._core"], check=True)
        text = (Path(folder) / "fastopt" / "_core.pyi").read_text()
    text = re.sub(r"^__all__.*\n", "", text, flags=re.MULTILINE)
    # The values of the attributes differ from build to build; their types do not.
    text = re.sub(
        r"^([A-Z_]+): \w+ = .*$",
        lambda found: f"{found[1]}: {type_of([getattr(_core, found[1])])}",
        text,
        flags=re.MULTILINE,
    )
    text = f"# Written by tools/stubs.py from the compiled module.\n{text}"
    for step in (["check", "-q", "--fix", "--select", "I"], ["format", "-q"]):
        ruff = [sys.executable, "-m", "ruff", *step, "--stdin-filename", str(STUB), "-"]
        text = subprocess.run(ruff, input=text, text=True, check=True, stdout=subprocess.PIPE).stdout
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare without writing")
    check = parser.parse_args().check
    fresh, committed = generate(), STUB.read_text() if STUB.exists() else ""
    if not check:
        STUB.write_text(fresh)
        return 0
    difference = difflib.unified_diff(
        committed.splitlines(True), fresh.splitlines(True), "committed", "generated"
    )
    sys.stderr.writelines(difference)
    return int(fresh != committed)


if __name__ == "__main__":
    sys.exit(main())
