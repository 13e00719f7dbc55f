"""The words of likeness that a shell can complete: commands, subcommands, options, and the values of options."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args, get_origin

OPTION = re.compile(r"--?[\w.-]+")  # not --name+, which appends to a list, nor "a --> b", jsonargparse's name of a link


class Words(NamedTuple):
    """What can follow a command: subcommands, and options with the values they take where these are few."""

    subcommands: list[str]
    options: dict[str, list[str]]


def all_words(commands: Sequence[str]) -> Iterator[tuple[str, Words]]:
    """The words after each command and subcommand, by its name; after ``likeness`` itself, by an empty text."""
    yield "", Words([*commands], {"--help": []})
    for command in commands:
        parser = _parser(command)
        names = [*_subparsers(parser), *(["tokenize"] if command == "data" else [])]
        yield command, Words(names, _options(parser))
        for name in names:
            chosen = _parser(command, name)
            yield f"{command} {name}", Words([], _options(_subparsers(chosen).get(name, chosen)))


def _parser(command: str, *words: str) -> argparse.ArgumentParser:
    """The parser with which a command reads these words."""
    from jsonargparse import capture_parser

    return capture_parser(partial(importlib.import_module(f"scripts.{command}").main, words))


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(next((action.choices for action in found), {}))


def _options(parser: argparse.ArgumentParser) -> dict[str, list[str]]:
    options = {option: _values(action) for action in parser._actions for option in action.option_strings}
    return {option: values for option, values in options.items() if OPTION.fullmatch(option)}


def _values(action: argparse.Action) -> list[str]:
    """The values among which an option chooses; none where they are free."""
    hint = getattr(action, "_typehint", None)  # jsonargparse's
    kinds = [kind for kind in (hint, *get_args(hint)) if get_origin(kind) is Literal]
    values: list[Any] = [value for kind in kinds for value in get_args(kind)] or [*(action.choices or ())]
    return [str(value) for value in values]
