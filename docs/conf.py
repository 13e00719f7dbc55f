"""How Sphinx builds the documentation (``make docs``): Markdown by MyST, the reference from docstrings, no network."""

import os
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]
os.environ["COLUMNS"] = "100"  # of the commands' help

import reference_pages  # noqa: E402

import likeness  # noqa: E402

project = "Likeness"
release = likeness.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
smartquotes = False  # they would change examples

myst_heading_anchors = 4

autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = "Likeness"
html_copy_source = False
html_show_copyright = False


def setup(app: Any) -> None:
    """Read docstrings as they are written here, and add the page of commands."""
    app.connect("autodoc-process-docstring", reference_pages.as_written)
    app.add_directive("command-help", reference_pages.CommandHelp)
