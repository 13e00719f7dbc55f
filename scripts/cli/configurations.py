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
from jsonargparse import _loaders_dumpers, set_dumper

from likeness.moved_names import moved
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


class ConfigurationLoader(yaml.SafeLoader):
    """YAML 1.2's values, no key twice, and class paths that moved as they are now."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (of this class alone)

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        # A value by itself is one for an option, whose type may want a truth value; in a file it is a text.
        if isinstance(node, yaml.ScalarNode) and node.style is None and SWITCH.fullmatch(node.value):
            node.tag = "tag:yaml.org,2002:bool"
        return node

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

    def construct_yaml_str(self, node: yaml.ScalarNode) -> str:
        return moved(super().construct_yaml_str(node))


ConfigurationLoader.add_constructor("tag:yaml.org,2002:str", ConfigurationLoader.construct_yaml_str)
for _tag, _pattern, _first in SCALARS:
    ConfigurationLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)
# Whatever jsonargparse reads, files and single values, it reads with this class. It has no public name for that.
_loaders_dumpers.yaml_default_loader = ConfigurationLoader  # type: ignore[assignment]  # declared by its first value


def dumped(content: Any) -> str:
    """The plain values as YAML, keys in their order, by libyaml where PyYAML has it: that is ten times as fast."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(content, Dumper=dumper, default_flow_style=False, sort_keys=False, allow_unicode=True)
    return text


set_dumper("yaml", dumped)


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
        content = yaml.load(path.read_bytes().decode("utf-8"), ConfigurationLoader)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        found = f"byte 0x{error.object[error.start]:02x} in line {line}"
        raise UsageError(f"the configuration {path} is not UTF-8: {found}; convert it, by iconv perhaps") from error
    except yaml.YAMLError as error:
        raise UsageError(f"the configuration {path}, {_problem(error)}") from error
    if not isinstance(content, dict):
        held = "nothing" if content is None else f"a {type(content).__name__}"
        raise UsageError(f"the configuration {path} holds {held}, and no keys with values")
    return content


def _problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


def read_value(text: str) -> Any:
    """The plain value that a text of a command line means."""
    return yaml.load(text, ConfigurationLoader)


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
