"""A directive that shows an example: ``{picture} valley`` runs ``examples/valley.py`` and gives what its
docstring says, what it draws and what it prints. So no picture is kept in the repository, and no figure beside
one is written by hand.

The scripts run when the page is read, and again when one of them or fastopt has changed. One that fails, or
that the page leaves out, is a warning, which the build takes for an error.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import fastopt

DOCS = Path(__file__).parent
EXAMPLES = DOCS.parent / "examples"
PACKAGE = Path(fastopt.__file__).parent
DRAWN = DOCS / "_build" / "pictures"
PAGE = DOCS / "pictures.md"

logger = logging.getLogger(__name__)


def scripts() -> set[str]:
    """The examples that can be run; the others are parts of them."""
    return {p.stem for p in EXAMPLES.glob("*.py") if '__name__ == "__main__"' in p.read_text()}


def check_page(app: Sphinx) -> None:
    shown = re.findall(r"^```\{picture\} (\w+)$", PAGE.read_text(), re.MULTILINE)
    if sorted(shown) != sorted(scripts()):
        logger.warning("pictures.md shows %s, but examples/ has %s", sorted(shown), sorted(scripts()))


def printed_by(name: str) -> str:
    """Run an example where its picture shall lie."""
    DRAWN.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"],
        cwd=DRAWN,
        env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", "COLUMNS": "100"},
        capture_output=True,
        encoding="utf-8",
    )
    if done.returncode or not (DRAWN / f"{name}.png").exists():
        logger.warning("examples/%s.py drew nothing: %s", name, done.stderr or done.stdout)
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())


class Picture(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        for path in (EXAMPLES.glob("*.py"), PACKAGE.rglob("*.py"), PACKAGE.glob("_core*.so")):
            for file in path:
                self.env.note_dependency(str(file))
        docstring = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text())) or name
        title, *paragraphs = docstring.split("\n\n")
        said = [p for p in paragraphs if not p.startswith("    pip install")]
        lines = [
            f"```{{figure}} /{DRAWN.relative_to(DOCS)}/{name}.png",
            f":alt: {title}",
            "",
            title,
            "```",
            "",
            *"\n\n".join(said).splitlines(),
            "",
            "```console",
            f"$ python examples/{name}.py",
            *printed_by(name).splitlines(),
            "```",
        ]
        content = nodes.Element()
        self.state.nested_parse(StringList(lines, str(PAGE)), self.content_offset, content)
        return content.children


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("picture", Picture)
    app.connect("builder-inited", check_page)
    return {"parallel_read_safe": True}
