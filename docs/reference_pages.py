"""The reference: docstrings, which are plain text and no markup, and what each command prints when asked for help."""

import contextlib
import importlib
import io
import re

from docutils import nodes
from docutils.parsers.rst import Directive

from scripts.main import COMMANDS

CODE = re.compile(r"(``.+?``|`[^`]+`)", re.DOTALL)
MARKUP = re.compile(r"([\\*|`]|_(?=\W|$))")
EXPLAINED = re.compile(r"[\w`][\w`, ]*: ")  # an argument or option and what it is


def as_written(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Turn a docstring, for autodoc, into markup that shows it: paragraphs, lists of arguments, examples."""
    blocks = re.split(r"\n\s*\n", "\n".join(lines).strip("\n"))
    lines[:] = "\n\n".join(map(block, blocks)).split("\n")


def block(text: str) -> str:
    """Lines between two blank ones. Where they are indented, or explain arguments, they stay lines."""
    if text.lstrip().startswith(">>>"):
        return text
    shown = escaped(text)
    rows = shown.split("\n")
    if any(row.startswith(" ") for row in rows) or sum(bool(EXPLAINED.match(row)) for row in rows) > 1:
        return "\n".join(f"| {row}" for row in rows)
    return shown


def escaped(text: str) -> str:
    """The text without markup but for code."""
    parts = CODE.split(text)
    parts[::2] = [MARKUP.sub(r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"``{' '.join(part.strip('`').split())}``" for part in parts[1::2]]
    return "".join(parts)


class CommandHelp(Directive):
    """A section for each command, with what ``likeness COMMAND --help`` prints."""

    def run(self) -> list[nodes.Node]:
        """The sections."""
        return [section(name) for name in COMMANDS]


def section(name: str) -> nodes.section:
    """A command's heading and its help."""
    found, text = nodes.section(ids=[name]), help_of(name)
    found += nodes.title(text=name)
    found += nodes.literal_block(text, text, language="text")
    return found


def help_of(name: str) -> str:
    """What the command prints when it is asked for help."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        importlib.import_module(f"scripts.{name}").main(["--help"])
    return printed.getvalue()
