"""Subcommands that are functions: their options are the function's arguments, help included."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any, NamedTuple, get_args, get_origin

from jsonargparse import ActionYesNo

from scripts.cli.entry_point import Parser


class Subcommand(NamedTuple):
    """A function by its import path, and the line that stands for it in the list of subcommands."""

    function: str
    summary: str


class Call(NamedTuple):
    """A subcommand that the command line asks for."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]  # for the function's positional-only parameters
    options: dict[str, Any]  # of the function
    common: dict[str, Any]  # of every subcommand


def parse_call(
    parser: Parser,
    subcommands: Mapping[str, Subcommand],
    argv: Sequence[str] | None,
    add_common: Callable[[Parser], None] = lambda command: None,
) -> Call:
    """Read the command line; of the functions only the one that it names is imported.

    ``add_common`` adds the options that all subcommands have.
    """
    words = [*(sys.argv[1:] if argv is None else argv)]
    named = next((word for word in words if word in subcommands), None)
    kind = parser.prog.rpartition(" ")[2]  # "bench" of "likeness bench"
    choices = parser.add_subcommands(dest=kind)
    for name, (path, summary) in subcommands.items():
        command = Parser(description=summary)
        if name == named:
            add_options(command, _imported(path))
        add_common(command)
        choices.add_subcommand(name, command, help=summary)
    parsed = parser.parse_args(words)
    name = parsed[kind]
    given, function = parsed[name].as_dict(), _imported(subcommands[name].function)
    parameters = inspect.signature(function).parameters.values()
    positional = [given.pop(p.name) for p in parameters if p.kind is p.POSITIONAL_ONLY]
    options = {p.name: given.pop(p.name) for p in parameters if p.name in given}
    return Call(name, function, tuple(positional), options, given)


def add_options(command: Parser, function: Callable[..., Any]) -> None:
    """Add an option for each argument of ``function``, with its type, default and description.

    A sequence takes any number of values, a tuple its number, and ``--flag`` alone is true. Positional-only parameters
    are positional on the command line too.
    """
    import docstring_parser

    documented = docstring_parser.parse(inspect.getdoc(function) or "").params
    described = {entry.arg_name: entry.description for entry in documented}
    own = {}
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        settings = _settings(parameter)
        if settings is not None:
            default = parameter.default
            default = [*default] if isinstance(default, tuple) else default  # values are filled in one by one
            own[name] = settings | {"default": default, "help": described.get(name)}
    command.add_function_arguments(function, skip=set(own))
    for name, settings in own.items():
        positional = settings.pop("positional")
        command.add_argument(name if positional else f"--{name}", **settings)


def _settings(parameter: inspect.Parameter) -> dict[str, Any] | None:
    """How an argument is read where a signature alone would want it written as YAML; None for all others."""
    kinds = [kind for kind in get_args(parameter.annotation) if kind is not NoneType]
    annotation = kinds[0] if NoneType in get_args(parameter.annotation) and len(kinds) == 1 else parameter.annotation
    positional = parameter.kind is parameter.POSITIONAL_ONLY
    if annotation is bool:
        return {"action": ActionYesNo, "nargs": "?", "positional": False}
    if get_origin(annotation) is Sequence:
        return {"type": get_args(annotation)[0], "nargs": "*", "positional": positional}
    if get_origin(annotation) is tuple:
        return {"type": get_args(annotation)[0], "nargs": len(get_args(annotation)), "positional": positional}
    if positional:
        return {"type": annotation, "nargs": "?", "positional": True}
    return None


def _imported(path: str) -> Callable[..., Any]:
    module, _, name = path.rpartition(".")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function
