"""Configuration files: one reader for every command, whose errors name the file and the line.

A value is what YAML 1.2 says it is. YAML 1.1, PyYAML's own, takes ``1:30`` for 90, ``010`` for 8, ``no`` for false,
``1e-3`` for a text, and keeps the last of two equal keys without a word. Whoever imports this module has jsonargparse
read YAML in the same way.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_loader
from jsonargparse._optionals import omegaconf_absolute_to_relative_paths

from likeness.moved_names import moved, with_moved_names
from scripts.cli.entry_point import UsageError

ROOT = Path(__file__).resolve().parents[2]  # holds configs/, in an installed copy too
# Tag, pattern and first characters of the values that are no texts.
SCALARS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9_]*)|0x[0-9a-fA-F]+|0o[0-7]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9][0-9_]*(?=[eE]))([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
)
SWITCH = re.compile(r"(?i)yes|no|on|off")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's values, and no key twice."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (of this class alone)

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                continue
            if key.value in lines:
                problem = f"the key {key.value!r} is there already, in line {lines[key.value]}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return node


for _tag, _pattern, _first in SCALARS:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


def read_configuration(path: Path) -> dict[str, Any]:
    """The mapping in a configuration file, class paths that moved as they are now.

    Raises UsageError, naming the file and the line, where there is no such file, it is no UTF-8 or no YAML, has a key
    twice, or holds no mapping.
    """
    path = located(path)
    if path.is_dir():
        raise UsageError(f"the configuration {path} is a folder: name a file in it")
    if not path.is_file():
        raise UsageError(f"there is no configuration {path}")
    try:
        content = yaml.load(path.read_bytes().decode("utf-8"), _Loader)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        found = f"byte 0x{error.object[error.start]:02x} in line {line}"
        raise UsageError(f"the configuration {path} is not UTF-8: {found}; convert it, by iconv perhaps") from error
    except yaml.YAMLError as error:
        raise UsageError(f"the configuration {path}, {_problem(error)}") from error
    if not isinstance(content, dict):
        held = "nothing" if content is None else f"a {type(content).__name__}"
        raise UsageError(f"the configuration {path} holds {held}, and no keys with values")
    return with_moved_names(content)


def _problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


def read_value(text: str) -> Any:
    """The plain value that a text of a command line means."""
    return yaml.load(text, _Loader)


def located(path: Path) -> Path:
    """The path with ``~`` replaced; or the project's own file of that name, where the working directory has none."""
    path = path.expanduser()
    return path if path.exists() or not (ROOT / path).exists() else ROOT / path


def prepared_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line whose configuration files are checked and located, and whose class paths that moved are new."""
    return [_prepared(argument) for argument in arguments]


def _prepared(argument: str) -> str:
    option, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    value = moved(value)
    if Path(value).suffix in (".yaml", ".yml") and len(value.splitlines()) == 1 and located(Path(value)).exists():
        value = str(located(Path(value)))
        read_configuration(Path(value))
    return f"{option}{equals}{value}"


def _load(text: str) -> Any:
    """The value of a text for jsonargparse: whole files, and single values, of which a type may make a truth value."""
    value = read_value(text)
    if isinstance(value, str) and SWITCH.fullmatch(value):
        return value.lower() in ("yes", "on")
    if isinstance(value, dict) and "\n" not in text.strip() and all(entry is None for entry in value.values()):
        return text  # that ends with a colon, or stands in braces, and is no mapping
    return with_moved_names(value)


def _load_interpolated(text: str) -> Any:
    """The same where ``${run_dir}`` may stand in a file; jsonargparse nests what it reads below the subcommand."""
    value = _load(text)
    return omegaconf_absolute_to_relative_paths(value) if isinstance(value, dict) else value


set_loader("yaml", _load, (yaml.YAMLError,))
set_loader("omegaconf+", _load_interpolated, (yaml.YAMLError,))
