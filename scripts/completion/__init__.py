"""What a shell needs to complete command lines: ``source <(likeness completion bash)``.

The script names all commands, subcommands and options, so that nothing is imported when the user presses the tab key;
building the parser of a training would take seconds each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from scripts.cli.entry_point import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the script."""
    shell = build_parser().parse_args(argv).shell
    from scripts.completion.shells import SCRIPTS
    from scripts.completion.words import all_words
    from scripts.main import COMMANDS

    print(SCRIPTS[shell](dict(all_words([*COMMANDS]))), end="")
    return 0


def build_parser() -> Parser:
    """The command line of this command."""
    parser = Parser(
        prog="likeness completion",
        description="Print a script that has a shell complete the names of commands, options and their values.",
    )
    parser.add_argument("shell", metavar="{bash,zsh,fish}", type=Literal["bash", "zsh", "fish"], help="The shell.")
    return parser
