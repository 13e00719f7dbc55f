"""The frame of every command: a parser without abbreviations, one line for an error, a status that a shell can test."""

import io
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from likeness.files.errors import DataError
from scripts.cli import restarts
from scripts.cli.examples import example
from scripts.cli.watch import GRACE, RANK_0, Interrupted, LostRank, Watch

# jsonargparse lists every type that a value could have had; the reason stands among them.
UNION = re.compile(
    r"(- )?Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: - (?P<errors>.*?) "
    r"Given value type: .*? Given value: (?P<value>.*)$"
)
# A collective operation fails in these words where another rank is gone, with gloo and with NCCL.
PEER_GONE = re.compile(r"gloo|NCCL|TCPStore|[Cc]onnection (reset|closed|refused)|[Bb]roken pipe")
NAMES = ("key", "query_key", "pair", "neighbours")  # options for names, which are no paths
USAGE_STATUS = 2
INTERRUPT_STATUS = 130
STATUSES = {
    "0": "done, or nothing was left to do; watch: also Ctrl-C",
    "1": "failed; doctor: there is a problem; watch --once: a run failed",
    "2": "wrong command line, configuration or file of data",
    "75": "stopped by --stop_after; the same line with --auto_resume goes on",
    "128 + N": "stopped by signal N: 129 SIGHUP, 130 Ctrl-C, 138 SIGUSR1, 143 SIGTERM",
}
"""How a command ends, for a shell that asks; docs/reference/commands.md says more."""
COMMON = "--debug shows the traceback of an error; 'likeness --help' has the exit statuses."
TERMINATED = 128 + signal.SIGTERM


class UsageError(ValueError):
    """What was asked for cannot be meant: the command ends with the status of a wrong command line."""


class Stopped(Exception):
    """A run was asked to stop and did so in good order; ``status`` is the exit status it asks for."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def rank() -> int:
    """This process's number among those that train together, before and after torch knows about them.

    Variables that a launcher has left in the environment of a later process do not count.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ.get("RANK") or 0)
    if RANK_0 in os.environ:
        return int(os.environ.get("LOCAL_RANK") or 0)
    return int(os.environ.get("SLURM_PROCID") or 0) if by_srun() else 0


def by_srun() -> bool:
    """Whether srun started this process, and not SLURM's batch script, or a shell within an allocation."""
    # A batch script is task 0 of a job of many tasks; what srun starts is also told of its step.
    return bool(os.environ.get("SLURM_STEP_NUM_TASKS")) or int(os.environ.get("SLURM_PROCID") or 0) > 0


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

    Exit status: 0 for success, 2 for a wrong command line, configuration or file of data, 128 + its number for a
    signal, the status that a ``Stopped`` carries, that of a rank that was lost, and 1 for every other failure.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal of any encoding shows what it can
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
        logging.getLogger("likeness").setLevel(logging.DEBUG)
    if (status := restarts.asked()) is not None:
        sys.exit(restarts.leave(status))
    with Watch(partial(_end, debug=debug), until_exit=argv is None) as watch:
        try:
            error = _outcome(main, arguments)
            watch.settle()
        except Interrupted as late:
            error = late
        error = _cause(error, watch)
        status = _end(error, debug=debug)
        watch.will_end_with(status)
        _leave_process_group()
        watch.end_ranks(at_once=error is not None and not isinstance(error, Stopped))
        if status == 0 and (lost := watch.lost_rank()) is not None:
            status = _end(lost, debug=debug)
    sys.exit(status)


def _outcome(main: Callable[[Sequence[str]], object], arguments: Sequence[str]) -> BaseException | None:
    try:
        main(arguments)
    except BaseException as error:
        return error
    return None


def _cause(error: BaseException | None, watch: Watch) -> BaseException | None:
    """The loss of a rank where that is what made a collective operation fail, else the error itself."""
    if not isinstance(error, RuntimeError) or not PEER_GONE.search(str(error)):
        return error
    # The connection of a process closes before the process is seen to have ended.
    lost = watch.lost_rank(within=GRACE if watch.ranks else GRACE / 10)
    return lost or (SystemExit(1) if RANK_0 in os.environ else error)  # of a third rank rank 0 tells


def _end(error: BaseException | None, *, debug: bool) -> int:
    """Say why the command ends, and return its exit status."""
    if debug and isinstance(error, Exception) and not isinstance(error, Stopped):
        traceback.print_exception(error)
    match error:
        case None:
            return 0
        case Stopped():
            _tell(error)
            restarts.ask(error.status)
            return 0 if RANK_0 in os.environ else restarts.leave(error.status)  # rank 0 ends with it
        case Interrupted():
            _tell(error)
            if error.status != TERMINATED:  # torchrun sends it to the others when one rank is dead, to start all again
                restarts.ask(error.status)
            return error.status
        case KeyboardInterrupt():
            _tell("interrupted")
            return INTERRUPT_STATUS
        case SystemExit():
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        case UsageError() | DataError():
            status = USAGE_STATUS
        case _:
            status = error.status if isinstance(error, LostRank) else 1
    if not isinstance(error, SystemExit) and not debug:
        report(error)
    if status == USAGE_STATUS:
        restarts.ask(status)
    return status


def _tell(reason: BaseException | str) -> None:
    """Say on standard error, once for all ranks, what is no error."""
    if rank() == 0:
        print(f"likeness: {one_line(reason)}", file=sys.stderr, flush=True)


def _leave_process_group() -> None:
    """Take leave of the other ranks: threads of a group that is left to the interpreter's end abort the process."""
    distributed = sys.modules.get("torch.distributed.distributed_c10d")
    if distributed is not None and distributed.is_initialized():
        with suppress(RuntimeError):  # of a group that another rank has left already
            distributed.destroy_process_group()


def with_home(value: Any) -> Any:
    """Nested values with ``~`` at the beginning of a path as the user's home directory; those of ``NAMES`` stay.

    Raises UsageError where there is none to be found.
    """
    match value:
        case Namespace():
            return Namespace({key: entry if key in NAMES else with_home(entry) for key, entry in vars(value).items()})
        case dict():
            return {key: with_home(entry) for key, entry in value.items()}
        case list():
            return [with_home(entry) for entry in value]
        case Path():
            return Path(with_home(str(value)))
    if not isinstance(value, str) or not (value == "~" or value.startswith("~/")):
        return value
    if (expanded := os.path.expanduser(value)) == value:
        raise UsageError(f"{value} is in your home directory, and there is none: HOME is not set")
    return expanded


class OneLineErrors:
    """For parsers: an error is one line instead of a page of usage, and options are never abbreviated."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and exit with the status of a wrong command line."""
        report(message)
        raise SystemExit(USAGE_STATUS) from ex

    def format_help(self, formatter: Any = None) -> str:
        """The options, an example to run, and what all commands have in common."""
        line = example(self.prog)  # type: ignore[attr-defined]  # argparse's
        shown = "" if line is None else f"\nexample:\n  {line}\n"
        return f"{super().format_help(formatter)}{shown}\n{COMMON}\n"  # type: ignore[misc]


class Parser(OneLineErrors, ArgumentParser):
    """The parser of a command that is not LightningCLI's; ``~`` begins a path in any of its options."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """The options, with the user's home directory in paths."""
        return with_home(super().parse_args(*args, **kwargs))
