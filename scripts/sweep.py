"""One point of a W&B grid sweep, without W&B: ``python -m scripts.sweep SWEEP --index $SLURM_ARRAY_TASK_ID``."""

import itertools
import math
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from scripts.cli.configurations import read_configuration
from scripts.cli.entry_point import Parser, UsageError, run_command

WANDB = "--config=configs/logger/wandb.yaml"
Sweep = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Become the command of one point, or print it, or how many there are; raises what is wrong with the file."""
    words = list(sys.argv[1:] if argv is None else argv)
    own, more = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    arguments = build_parser().parse_args(own)
    sweep = read_sweep(Path(arguments.sweep))
    if arguments.count:
        print(count(sweep))
        return 0
    command = [*point_command(sweep, arguments.index), *more]
    print(shlex.join(command), flush=True)
    if not arguments.dry_run:
        os.execv(command[0], command)  # signals and the exit status are the training's
    return 0


def build_parser() -> ArgumentParser:
    """The command line of this command."""
    parser = Parser(
        prog="likeness sweep",
        description="Train one point of a grid sweep, the same that W&B's agent would; metrics go to metrics.csv.",
        epilog="What follows -- is added to the training's options, as in: -- --config configs/logger/wandb.yaml",
    )
    add = parser.add_argument
    add("sweep", metavar="SWEEP", help="A W&B sweep file: configs/sweep/*.yaml.")
    add("--index", type=int, default=0, help="Number of the point, from 0; the last parameter varies fastest.")
    add("--count", action="store_true", help="Print how many points there are.")
    add("--dry_run", action="store_true", help="Print the command of the point and do not run it.")
    return parser


def read_sweep(path: Path) -> Sweep:
    """The sweep of a file. Raises UsageError where it is none, or not a grid of listed values."""
    content = read_configuration(path)
    if not {"method", "parameters", "command"} <= content.keys():
        raise UsageError(f"{path} is no sweep: it lacks method, parameters or command")
    if content["method"] != "grid":
        raise UsageError(f"{path}: method is {content['method']}, and only a grid has points that can be counted")
    for name, parameter in content["parameters"].items():
        if not isinstance(parameter, dict) or parameter.keys() not in ({"values"}, {"value"}):
            raise UsageError(f"{path}: {name} must have a list of values, or one value, got {parameter}")
    return content


def count(sweep: Sweep) -> int:
    """How many points the grid has."""
    return math.prod(len(values) for values in _values(sweep).values())


def point_command(sweep: Sweep, index: int) -> list[str]:
    """The command line of a point, beginning with this interpreter, and without W&B.

    Raises UsageError for an index outside the grid, or a macro other than W&B's env, interpreter and args.
    """
    if not 0 <= index < count(sweep):
        raise UsageError(f"--index must be from 0 to {count(sweep) - 1}, got {index}")
    values = _values(sweep)
    point = next(itertools.islice(itertools.product(*values.values()), index, None))
    options = [f"--{name}={value}" for name, value in zip(values, point, strict=True)]
    macros = {"${env}": [], "${interpreter}": [sys.executable], "${args}": options}
    command = []
    for word in map(str, sweep["command"]):
        if word.startswith("${") and word.endswith("}") and word not in macros:
            raise UsageError(f"command: the macro {word} is not known; use {', '.join(macros)}")
        command += macros.get(word, [] if word == WANDB else [word])
    return command


def _values(sweep: Sweep) -> dict[str, list[Any]]:
    return {name: given.get("values", [given.get("value")]) for name, given in sweep["parameters"].items()}


if __name__ == "__main__":
    run_command(main)
