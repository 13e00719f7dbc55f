"""How fast it is, as ratios measured in one run: ``python -m scripts.bench BENCH [--out FILE]``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.cli.entry_point import Parser

if TYPE_CHECKING:
    from scripts.bench.timing import Report


def benches() -> dict[str, Callable[..., Report]]:
    """Every bench by its name on the command line; its arguments are the function's. A new one is one line here."""
    from scripts.bench.callbacks import callbacks
    from scripts.bench.diffusion import diffusion
    from scripts.bench.hubness import hubness
    from scripts.bench.loss import loss
    from scripts.bench.siblings import siblings
    from scripts.bench.similarity import similarity

    return {
        "siblings": siblings,
        "loss": loss,
        "callbacks": callbacks,
        "similarity": similarity,
        "diffusion": diffusion,
        "hubness": hubness,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run one bench, print its table, and write it where ``--out`` says."""
    choices = benches()
    arguments = build_parser(choices).parse_args(argv)
    options = arguments[arguments.bench].as_dict()
    out = options.pop("out")
    threads = options.pop("threads")
    from scripts.bench.timing import machine, use_threads

    use_threads(threads)
    before = machine()
    report = choices[arguments.bench](**options)
    show(report, before)
    if out is not None:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_text(
            json.dumps({"bench": arguments.bench, "machine": before, **report.as_dict()}, indent=2) + "\n"
        )
    return 0


def build_parser(choices: dict[str, Callable[..., Report]]) -> Parser:
    """One subcommand for each bench."""
    parser = Parser(prog="likeness bench", description="Measure speed, as ratios in one run.")
    commands = parser.add_subcommands(dest="bench")
    for name, bench in choices.items():
        command = Parser(description=(bench.__doc__ or "").partition("\n")[0])
        command.add_function_arguments(bench)
        command.add_argument("--threads", type=int | None, help="Threads of torch; by default as many as it takes.")
        command.add_argument("--out", type=str | None, help="A JSON file for the result.")
        commands.add_subcommand(name, command, help=command.description)
    return parser


def show(report: Report, facts: dict[str, Any]) -> None:
    """Print the machine, the figures and what is asked for."""
    from rich.console import Console

    console = Console()
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()))
    console.print(report.table())
    for line in report.verdicts():
        console.print(line)
