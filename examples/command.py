"""Command-line arguments that the scripts share."""

import argparse
import os

from matplotlib.backend_bases import FigureCanvasBase


def picture(path):
    """Check a path to draw to, as an argparse type: an unusable path is reported before the run."""
    folder = os.path.dirname(path) or "."
    kinds = FigureCanvasBase.get_supported_filetypes().keys() - {"pgf"}  # pgf needs LaTeX
    problem = None
    if not os.path.isdir(folder):
        problem = f"the folder {folder!r} does not exist"
    elif os.path.isdir(path):
        problem = "it is a folder"
    elif os.path.splitext(path)[1][1:].lower() not in kinds:
        problem = f"the file name must end in one of {', '.join(sorted(kinds))}"
    elif not os.access(path if os.path.exists(path) else folder, os.W_OK):
        problem = "it is not writable"
    if problem:
        raise argparse.ArgumentTypeError(f"cannot draw to {path!r}: {problem}")
    return path


def add_picture(parser, name, default, **kwargs):
    text = "file to draw to (default: %(default)s)"
    parser.add_argument(name, metavar="FILE", default=default, type=picture, help=text, **kwargs)


def first_line(doc):
    """Return the first line of a docstring, which is None with ``python -OO``."""
    return (doc or "").partition("\n")[0]


def picture_argument(doc, default):
    """Parse the only argument of a script, the path of its picture. ``doc`` is the script's docstring."""
    parser = argparse.ArgumentParser(description=first_line(doc))
    add_picture(parser, "picture", default, nargs="?")
    return parser.parse_args().picture
