"""How fast it is, as ratios measured in one run: ``python -m scripts.bench BENCH [--out FILE]``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.cli.entry_point import Parser
from scripts.cli.functions import Subcommand, parse_call

if TYPE_CHECKING:
    from scripts.bench.timing import Report

# A new bench is a function that returns a ``Report`` and one line here.
BENCHES = {
    "siblings": Subcommand("scripts.bench.siblings.siblings", "a step of many siblings against as many lone models"),
    "loss": Subcommand("scripts.bench.loss.loss", "f evaluated once against once for each label"),
    "callbacks": Subcommand("scripts.bench.callbacks.callbacks", "the share of each callback in a training"),
    "similarity": Subcommand("scripts.bench.similarity.similarity", "all pairs at once against a plain loop"),
    "diffusion": Subcommand("scripts.bench.diffusion.diffusion", "steps of VDM and DiffEnc"),
    "layers": Subcommand("scripts.bench.layers.layers", "CKA of all pairs of layers against pytorch-cka"),
    "hubness": Subcommand("scripts.bench.hubness.hubness", "exact neighbours and mutual proximity"),
    "language": Subcommand("scripts.bench.language.language", "language models: loss, step, siblings, comparison"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one bench, print its table, and write it where ``--out`` says."""
    parser = Parser(prog="likeness bench", description="Measure speed, as ratios in one run.")
    call = parse_call(parser, BENCHES, argv, _add_common)
    from scripts.bench.timing import machine, use_threads
    from scripts.reporting import write_json

    use_threads(call.common["threads"])
    before = machine()
    report = call.function(*call.arguments, **call.options)
    show(report, before)
    if (out := call.common["out"]) is not None:
        write_json(Path(out), {"bench": call.name, "machine": before, **report.as_dict()})
    return 0


def _add_common(command: Parser) -> None:
    command.add_argument("--threads", type=int | None, help="Threads of torch; by default as many as it takes.")
    command.add_argument("--out", type=str | None, help="A JSON file for the result.")


def show(report: Report, facts: dict[str, Any]) -> None:
    """Print the machine, the figures and what is asked for."""
    from rich.console import Console

    console = Console()
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()))
    console.print(report.table())
    for line in report.verdicts():
        console.print(line)
