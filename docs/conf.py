"""How Sphinx builds the documentation; CONTRIBUTING.md has the commands."""

import doctest
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # pictures.py

import fastopt

project = "fastopt"
author = "The fastopt developers"
copyright = "the fastopt developers, MIT licence"
version = release = fastopt.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.doctest",
    "pictures",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3  # pages link to each other's headings

# Docstrings say in words what an argument may be; nearly all of their types are Any, "an array of any library".
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_param = False  # "a, b: as in c" stays one line
napoleon_use_rtype = False
python_maximum_signature_line_length = 88

# tests/test_doctests.py runs the docstrings' examples. The doctest builder runs those of the pages alone.
doctest_test_doctest_blocks = ""
doctest_default_flags = doctest.ELLIPSIS  # by default any message of an exception would do

# Every reference leads somewhere, without exceptions. No intersphinx: the build fetches nothing.
nitpicky = True

html_theme = "furo"
html_title = f"fastopt {version}"
html_static_path = ["_static"]
html_css_files = ["fastopt.css"]
html_copy_source = html_show_sourcelink = False
