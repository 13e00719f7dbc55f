"""How every command ends: one line that names what went wrong, and a status a shell can test.

The command line of every command: no abbreviations, and one line when something is wrong.
"""

import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from datamodules.errors import DataError
from scripts.cli import restarts

# jsonargparse lists every type that a value could have had; the reason stands among them.
UNION = re.compile(
    r"(- )?Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: - (?P<errors>.*?) "
    r"Given value type: .*? Given value: (?P<value>.*)$"
)
USAGE_STATUS = 2
INTERRUPT_STATUS = 130


class UsageError(ValueError):
    """What was asked for cannot be meant: the command ends with the status of a wrong command line."""


class Stopped(Exception):
    """A run was asked to stop and did so in good order; ``status`` is the exit status it asks for."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def rank() -> int:
    """This process's number among those that train together, before and after torch knows about them."""
    # In this order: torchrun, Lightning's own processes, SLURM (which numbers an interactive shell, too).
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return next((int(os.environ[name]) for name in names if os.environ.get(name)), 0)


def report(error: BaseException | str) -> None:
    """Print one line on standard error; ranks other than 0 say which one they are."""
    where = f" (rank {rank()})" if rank() else ""
    print(f"likeness: error{where}: {one_line(error)}", file=sys.stderr, flush=True)


def one_line(error: BaseException | str) -> str:
    """The message of an error with its line breaks folded; the type's name where the message says too little."""
    text = UNION.sub(_essence, " ".join(str(error).split()))
    if isinstance(error, KeyError | AttributeError | TypeError | AssertionError) or not text:
        return f"{type(error).__name__}: {text}".rstrip(": ")
    return text


def _essence(union: re.Match[str]) -> str:
    reasons = [reason for reason in union["errors"].split(" - ") if reason != "Expected a <class 'NoneType'>"]
    value = union["value"]
    return "; ".join(reasons) + ("" if value.startswith("Namespace(") else f", got {value}")


def run_command(main: Callable[[Sequence[str]], object], argv: Sequence[str] | None = None) -> None:
    """Run ``main`` on the command line and exit; ``--debug`` shows tracebacks instead of one line.

    Exit status: 0 for success, 2 for a wrong command line, configuration or file of data, 130 for Ctrl-C, the status
    that a ``Stopped`` carries, and 1 for every other failure.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
        logging.getLogger("likeness").setLevel(logging.DEBUG)
    if (status := restarts.asked()) is not None:
        sys.exit(restarts.leave(status))
    status = _status(main, arguments, debug)
    if status == USAGE_STATUS:
        restarts.ask(status)
    sys.exit(status)


def _status(main: Callable[[Sequence[str]], object], arguments: Sequence[str], debug: bool) -> int:
    try:
        main(arguments)
    except Stopped as stop:
        if rank() == 0:
            print(f"likeness: {one_line(stop)}", file=sys.stderr, flush=True)
        return restarts.leave(stop.status)
    except KeyboardInterrupt:
        print("likeness: interrupted", file=sys.stderr, flush=True)
        return INTERRUPT_STATUS
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        if debug:
            traceback.print_exc()
        else:
            report(error)
        return USAGE_STATUS if isinstance(error, UsageError | DataError) else 1
    return 0


class OneLineErrors:
    """For parsers: an error is one line instead of a page of usage, and options are never abbreviated."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and exit with the status of a wrong command line."""
        report(message)
        raise SystemExit(USAGE_STATUS) from ex


class Parser(OneLineErrors, ArgumentParser):
    """The parser of a command that is not LightningCLI's."""
