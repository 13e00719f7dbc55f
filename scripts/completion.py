"""What a shell needs to complete command lines: ``source <(likeness completion bash)``.

The script names all commands, subcommands and options, so that nothing is imported when the user presses the tab key;
building the parser of a training would take seconds each time.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args, get_origin

from scripts.cli.entry_point import Parser, run_command

BASH = """\
# Completion of likeness for bash; made by: likeness completion bash
_likeness() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
    local command="" word subcommands="" options="" values=""
    if [[ $current == "=" ]]; then current=""
    elif [[ $previous == "=" ]]; then previous=${{COMP_WORDS[COMP_CWORD-2]}}; fi
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$command $word" in
            {paths}) command="${{command:+$command }}$word" ;;
        esac
    done
    case "$command" in
{words}
    esac
    case "$command $previous" in
{values}
    esac
    if [[ -n $values ]]; then COMPREPLY=($(compgen -W "$values" -- "$current"))
    elif [[ $current == -* ]]; then COMPREPLY=($(compgen -W "$options --debug" -- "$current"))
    else COMPREPLY=($(compgen -W "$subcommands" -- "$current")); fi
}}
complete -o default -F _likeness likeness
"""


class Words(NamedTuple):
    """What can follow a command: subcommands, and options with the values they take where these are few."""

    subcommands: list[str]
    options: dict[str, list[str]]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the script."""
    build_parser().parse_args(argv)
    from scripts.main import COMMANDS

    print(bash_script(dict(all_words([*COMMANDS]))), end="")
    return 0


def build_parser() -> Parser:
    """The command line of this command."""
    parser = Parser(
        prog="likeness completion",
        description="Print a script that has a shell complete the names of commands, options and their values.",
        epilog="Elsewhere than in a bash: zsh reads it after 'autoload -U bashcompinit && bashcompinit'.",
    )
    parser.add_argument("shell", metavar="bash", type=Literal["bash"], help="The shell.")
    return parser


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
    return {option: values for option, values in options.items() if not option.endswith("+")}  # appends to a list


def _values(action: argparse.Action) -> list[str]:
    """The values among which an option chooses; none where they are free."""
    hint = getattr(action, "_typehint", None)  # jsonargparse's
    kinds = [kind for kind in (hint, *get_args(hint)) if get_origin(kind) is Literal]
    values: list[Any] = [value for kind in kinds for value in get_args(kind)] or [*(action.choices or ())]
    return [str(value) for value in values]


def bash_script(words: dict[str, Words]) -> str:
    """The completion of bash: one function, and the command that it completes."""
    paths = [f'" {command}"' if " " not in command else f'"{command}"' for command in words if command]
    lines = [
        f'        "{command}") subcommands="{" ".join(after.subcommands)}" options="{" ".join(after.options)}" ;;'
        for command, after in words.items()
    ]
    values = [
        f'        "{command} {option}") values="{" ".join(known)}" ;;'
        for command, after in words.items()
        for option, known in after.options.items()
        if known
    ]
    return BASH.format(paths=" | ".join(paths), words="\n".join(lines), values="\n".join(values))


if __name__ == "__main__":
    run_command(main)
