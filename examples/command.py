"""What the scripts' command lines have in common."""

import argparse
import os

from matplotlib.backend_bases import FigureCanvasBase


def picture(path):
    """A path, for argparse, at which a picture can be drawn; said before a run, not after it."""
    folder = os.path.dirname(path) or "."
    kinds = FigureCanvasBase.get_supported_filetypes().keys() - {"pgf"}  # which needs LaTeX
    trouble = None
    if not os.path.isdir(folder):
        trouble = f"there is no folder {folder!r}"
    elif os.path.isdir(path):
        trouble = "it is a folder"
    elif os.path.splitext(path)[1][1:].lower() not in kinds:
        trouble = f"its name must end in one of {', '.join(sorted(kinds))}"
    elif not os.access(path if os.path.exists(path) else folder, os.W_OK):
        trouble = "it may not be written"
    if trouble:
        raise argparse.ArgumentTypeError(f"cannot draw to {path!r}: {trouble}")
    return path


def add_picture(parser, name, default, **more):
    shown = "where to draw (default: %(default)s)"
    parser.add_argument(name, metavar="FILE", default=default, type=picture, help=shown, **more)


def first_line(doc):
    """Of a docstring, which Python leaves out with -OO."""
    return (doc or "").partition("\n")[0]


def picture_argument(doc, default):
    """The path that a script was given, its one argument. ``doc`` is the script's docstring."""
    parser = argparse.ArgumentParser(description=first_line(doc))
    add_picture(parser, "picture", default, nargs="?")
    return parser.parse_args().picture
