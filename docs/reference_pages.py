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
ROLE = re.compile(r":(?:class|func|meth|mod|attr):(?=`)")
EXPLAINED = re.compile(r"([\w\\*][\w\\*, ]*): ")  # an argument or option and what it is


def as_written(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Turn a docstring, for autodoc, into markup that shows it: paragraphs, lists of arguments, examples."""
    blocks = re.split(r"\n\s*\n", "\n".join(lines).strip("\n"))
    lines[:] = "\n\n".join(map(block, blocks)).split("\n")


def block(text: str) -> str:
    """Lines between two blank ones: arguments become a list, what is indented otherwise stays in lines."""
    prose, example, code = text.partition(">>>")
    if example:
        indent = prose[prose.rfind("\n") + 1 :]
        return f"{escaped(prose).rstrip()}\n\n{indent}{example}{code}"
    rows = escaped(text).split("\n")
    head = rows[:1] if rows[0].endswith(":") and len(rows) > 1 else []
    listed = entries(rows[len(head) :])
    if len(listed) > (not head) and all(EXPLAINED.match(entry) for entry in listed):
        items = [EXPLAINED.sub(r"- **\1**: ", entry, count=1) for entry in listed]
        return "\n\n".join([*head, "\n".join(items)])
    return "\n".join(f"| {row}" for row in rows) if any(row.startswith(" ") for row in rows) else "\n".join(rows)


def entries(rows: list[str]) -> list[str]:
    """Rows with those behind them that are indented further."""
    margin = len(rows[0]) - len(rows[0].lstrip())
    found: list[str] = []
    for row in rows:
        if found and row.startswith(" " * (margin + 1)):
            found[-1] += f" {row.strip()}"
        else:
            found.append(row.strip())
    return found


def escaped(text: str) -> str:
    """The text without markup but for code."""
    parts = CODE.split(ROLE.sub("", text))
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
