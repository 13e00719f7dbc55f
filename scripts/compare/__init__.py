"""How alike finished runs, checkpoints or siblings are: ``python -m scripts.compare RUN_OR_CKPT ... --data FILE``.

Causal language models of any kind on texts: ``python -m scripts.compare hf:A hf:B --texts FILE``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser

from scripts.cli.entry_point import Parser, UsageError
from scripts.cli.given import require_default
from scripts.compare import language
from scripts.inputs import choose_device, default_data, load_data, load_models

if TYPE_CHECKING:
    from likeness.comparisons.compare import Comparison
    from likeness.similarity.catalogue import Measure


OF_DATA = ("data", "split", "measures", "max_stored", "nulls")  # what says nothing of texts


def main(argv: Sequence[str] | None = None) -> int:
    """Load, evaluate, print, save; raises what went wrong."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.texts is not None:
        require_default(parser, arguments, OF_DATA, "with --texts")
        language.run(arguments)
        return 0
    require_default(parser, arguments, language.OPTIONS, "without --texts")
    if named := [path for path in arguments.models if language.names_a_language_model(path)]:
        raise UsageError(f"{named[0]} is a language model: name texts to compare it on with --texts")
    from likeness.similarity.catalogue import select
    from scripts.compare.comparison import compare

    measures = select(arguments.measures)
    require_nulls(arguments.nulls, measures)
    models = load_models(arguments.models)
    device = choose_device(arguments.device)
    data = load_data(Path(arguments.data) if arguments.data else default_data(arguments.models[0]))
    comparison = compare(models, data, arguments.split, measures, device, arguments.max_stored, arguments.nulls)
    for remark in comparison.metric.remarks():
        print(f"likeness: warning: {remark}", file=sys.stderr)
    publish(comparison, Path(arguments.out))
    return 0


def build_parser() -> ArgumentParser:
    """The command line of this command."""
    parser = Parser(
        prog="likeness compare",
        description="Measure how alike models are, on data that none of them need have seen.",
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="Runs, checkpoints, members: demo#3; hf:NAME, ...")
    parser.add_argument("--data", type=str | None, help="A data config; by default that of the first run.")
    parser.add_argument("--split", type=Literal["test", "val"], default="test", help="The split to compare on.")
    parser.add_argument("--out", type=str, default="runs/comparison", help="Where tables and figures are written.")
    parser.add_argument("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="Where models run.")
    parser.add_argument(
        "--measures", type=str, nargs="+", default=list(language.MEASURES), help="Measures, or families."
    )
    parser.add_argument("--max_stored", type=int, default=10_000, help="Inputs kept for measures beyond sums.")
    parser.add_argument("--nulls", type=int, default=0, help="Permutations for what unrelated models would score.")
    language.add_arguments(parser)
    return parser


def require_nulls(permutations: int, measures: Mapping[str, Measure]) -> None:
    """Raise ValueError where permutations are asked for and none of the measures has a null by permutation."""
    from likeness.similarity.catalogue import REPRESENTATION_MEASURES, RepresentationMeasure

    if permutations < 0:
        raise ValueError(f"--nulls takes a number of permutations, got {permutations}")
    if permutations and not any(isinstance(measure, RepresentationMeasure) for measure in measures.values()):
        raise ValueError(
            f"--nulls needs measures of samples, such as --measures {' '.join(REPRESENTATION_MEASURES)}; got "
            f"{', '.join(measures)}"
        )


def publish(comparison: Comparison, folder: Path) -> None:
    """Print the tables, write them and the figures into ``folder``, and name what was written."""
    from rich.console import Console

    from likeness.comparisons import tables

    console = Console()
    console.print(tables.model_table(comparison))
    console.print(tables.measure_table(comparison))
    for path in comparison.save(folder):
        print(f"likeness: wrote {path}")
