"""Hubness of embeddings: ``python -m scripts.hubness {analyse,reduce,compare} FILE [--labels ...]``.

Of a language model's predictions: ``python -m scripts.hubness lm MODEL --texts FILE``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import Namespace

from likeness.checks import require_positive
from scripts.cli.entry_point import Parser
from scripts.cli.given import require_default, require_needed
from scripts.hubness.methods import METHODS
from scripts.inputs import choose_device

if TYPE_CHECKING:
    from scripts.hubness.analysis import Search
    from scripts.hubness.points import Points
    from scripts.reporting import Report

FILE = (
    "Embeddings (.npy, .npz, .safetensors, .parquet), texts (.txt, .csv, .tsv, .parquet), a data config (.yaml), or "
    "docstrings: those of Python's standard library."
)
NEEDS = {"queries": ("query_key", "query_labels", "query_texts"), "augment": ("engine",)}
METHOD = "base, the name of a reduction, NAME:option=value,option=value, or several joined by +, features first"


def main(argv: Sequence[str] | None = None) -> int:
    """Read, measure, print, save; raises what went wrong."""
    arguments = build_parser().parse_args(argv)
    options = arguments[arguments.command]
    _require_meant(_command(arguments.command), options)
    COMMANDS[arguments.command](options)
    return 0


def build_parser() -> Parser:
    """One subcommand for each thing to be done with embeddings."""
    parser = Parser(
        prog="likeness hubness",
        description="Hubs are points that are the nearest neighbours of very many others, and crowd out the rest.",
    )
    commands = parser.add_subcommands(dest="command")
    for name, (summary, _) in SUMMARIES.items():
        commands.add_subcommand(name, _command(name), help=summary)
    return parser


def _command(name: str) -> Parser:
    summary, add = SUMMARIES[name]
    command = Parser(description=summary)
    add(command)
    command.add_argument("--out", type=str, default=f"runs/hubness/{name}", help="Where everything is written.")
    return command


def _require_meant(command: Parser, options: Namespace) -> None:
    """Refuse options that would say nothing, before anything is read."""
    require_needed(command, options, NEEDS)
    if not any(str(options.get(file)).endswith(".yaml") for file in ("file", "queries", "bank")):
        require_default(command, options, ["split"], "without a data config")
    if options.get("hub_count") is not None:
        require_default(command, options, ["hub_multiple"], "with --hub_count")


def _add_points(command: Parser) -> None:
    add = command.add_argument
    add("file", metavar="FILE", help=FILE)
    add("--key", type=str | None, help="The embeddings in a file that holds several; columns of Parquet as emb_*.")
    add("--labels", type=str | None, help="Labels: a file with one for each row, or a name within FILE.")
    add("--texts", type=str | None, help="Texts: the same.")
    add("--queries", type=str | None, help="Queries of their own: a file of the same kinds; the index is FILE.")
    add("--query_key", type=str | None, help="As --key, for queries.")
    add("--query_labels", type=str | None, help="As --labels, for queries.")
    add("--query_texts", type=str | None, help="As --texts, for queries.")
    add("--encoder", type=str | None, help="What embeds texts: tfidf (default), sentence-transformers or a run.")
    add("--dim", type=int | None, help="Dimension of TF-IDF embeddings; 128 by default, or as many as the texts allow.")
    add("--split", type=Literal["train", "val", "test"], default="test", help="The split of a data config.")
    add("--k", type=int, default=10, help="How many nearest neighbours.")
    metrics = Literal["euclidean", "sqeuclidean", "cosine", "dot"]
    add(
        "--metric",
        type=metrics | None,
        help="Metric of nearness: euclidean by default; methods bring their own, for the points before, too.",
    )
    add("--hub_factor", type=float, default=2.0, help="Hubs are in as many times k lists, or as --hub_rule says.")
    add("--hub_rule", type=Literal["multiple", "std", "absolute"], default="multiple", help="What the factor counts.")
    add("--seed", type=int, default=0, help="Seed of samples and folds.")
    add("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="Where it is computed.")


def _analyse_arguments(command: Parser) -> None:
    _add_points(command)
    add = command.add_argument
    add("--include_self", action="store_true", help="Count each point as its own neighbour, as scikit-hubness does.")
    add("--approximate", action="store_true", help="Search by FAISS's HNSW, and say with what recall.")
    add("--query_fraction", type=float, default=1.0, help="Search this share of the queries, and estimate from it.")
    add("--top", type=int, default=10, help="How many hubs to list.")


def _reduce_arguments(command: Parser) -> None:
    _add_points(command)
    add = command.add_argument
    add("--method", type=str, nargs="+", required=True, help=f"{METHOD}; several names are joined.")
    add("--bank", type=str | None, help="Queries that stand for those to come, for csls, nnn and inverted_softmax.")
    add("--augment", action="store_true", help="Write vectors and a FAISS index for inner-product engines, too.")
    add("--engine", type=Literal["flat", "hnsw"], default="flat", help="The FAISS index: exact, or a graph.")


def _compare_arguments(command: Parser) -> None:
    _add_points(command)
    add = command.add_argument
    add("--methods", type=str, nargs="+", default=METHODS, help=f"Each {METHOD}; base is compared anyway.")
    add("--bank", type=str | None, help="Queries that stand for those to come, for csls, nnn and inverted_softmax.")
    add("--folds", type=int, default=10, help="Folds of the cross-validation that chooses k; 0 leaves it out.")


def _language_arguments(command: Parser) -> None:
    add = command.add_argument
    add("model", metavar="MODEL", help="A causal language model: a folder, hf:NAME of the hub, or a .gguf file.")
    add("--texts", type=str, required=True, help="Texts (.txt, .csv, .tsv, .parquet), or docstrings.")
    add("--column", type=str | None, help="The texts within FILE, where it does not name them in a usual way.")
    add("--corpus", type=str | None, help="Texts whose tokens are counted; by default those that are next.")
    add("--positions", type=int, default=8192, help="How many contexts.")
    add("--prefix", type=int | str, default="separator", help="Before each text: none, bos, separator, or an id.")
    add("--rows", type=Literal["tokens", "all"], default="tokens", help="Rows of the head without a token, or not.")
    add("--length", type=int | None, help="Tokens of a window; by default what the model takes, at most 1024.")
    add("--stride", type=int | None, help="Tokens from one window to the next; by default its length.")
    add("--batch_size", type=int, default=16, help="Windows that the model sees at once.")
    add("--k", type=int, default=10, help="How many likeliest tokens and nearest neighbours.")
    add("--hub_multiple", type=float, default=10.0, help="Hubs have as many times the mean count.")
    add("--hub_count", type=float | None, help="Or this count.")
    kinds = Literal["tokens", "contexts"]
    add("--among", type=kinds, nargs="*", default=["tokens", "contexts"], help="Whose nearest neighbours are searched.")
    add("--include_self", action="store_true", help="Count each point as its own neighbour, as the paper's code does.")
    add("--reductions", type=str, nargs="*", help="What is tried on next-token accuracy; by default all that exist.")
    add("--top", type=int, default=10, help="How many hubs to list.")
    add("--seed", type=int, default=0, help="Seed of the choices of texts, and of nulls.")
    add("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="Where it is computed.")


def analyse(options: Namespace) -> None:
    """Every index beside its null, the k-occurrences drawn, and the largest hubs."""
    from likeness.figures.hubness import k_occurrence_figure
    from likeness.figures.output import save_formats
    from scripts.hubness import tables
    from scripts.hubness.analysis import analyse

    require_positive(**{"--top": options.top})
    points, queries, _ = open_sources(options)
    analysis = analyse(points, queries, search_of(options))
    folder = Path(options.out)
    name = Path(points.source).name
    figure = k_occurrence_figure({tables.with_recall(name, analysis.report): analysis.report})
    written = [*tables.write_all(analysis, folder, options.top), *save_formats(figure, folder, "k_occurrence")]
    shown = [tables.index_table(analysis), tables.shortened(tables.hub_table(analysis, options.top))]
    _publish(analysis.warnings, shown, written)


def reduce(options: Namespace) -> None:
    """One method: hubness before and after, and what it makes of the points on disk."""
    from scripts.hubness.methods import build_method
    from scripts.hubness.reduction import reduce_points

    search = search_of(options)
    text = "+".join(options.method)
    method = build_method(text, search.methods_metric)
    points, queries, bank = open_sources(options)
    engine = options.engine if options.augment else None
    reduced = reduce_points(text, method, points, queries, bank, search, engine, Path(options.out))
    _publish(reduced.warnings, [reduced.table], reduced.written)


def compare(options: Namespace) -> None:
    """Methods side by side."""
    from likeness.figures.output import save_formats
    from scripts.hubness import comparison_tables as tables
    from scripts.hubness.comparison import compare_methods

    points, queries, bank = open_sources(options)
    comparison = compare_methods(points, queries, options.methods, search_of(options), options.folds, bank)
    folder = Path(options.out)
    written = [
        tables.file_table(comparison).write(folder / "comparison.csv"),
        *save_formats(tables.comparison_figure(comparison), folder, "comparison"),
    ]
    shown = [tables.hubness_table(comparison)]
    if comparison.outcomes[0].score is not None:
        shown.append(tables.error_table(comparison))
    _publish([*comparison.warnings, *comparison.notes], shown, written)


def language(options: Namespace) -> None:
    """Prediction hubs of a causal language model beside frequencies and nulls, and whether reductions help it."""
    from dataclasses import fields

    from scripts.hubness import language_tables as tables
    from scripts.hubness.language import LanguageSearch, measure

    require_positive(**{f"--{name}": options[name] for name in ("top", "positions", "k", "batch_size")})
    given = {field.name: options[field.name] for field in fields(LanguageSearch) if options[field.name] is not None}
    found = measure(options.model, LanguageSearch(**given), choose_device(options.device))
    shown = [tables.index_table(found), tables.summary_table(found), tables.accuracy_table(found)]
    shown.append(tables.hub_table(found, options.top))
    shown += [table for table in (tables.point_table(found), tables.reduction_table(found)) if table.rows]
    _publish(found.warnings, shown, tables.write_all(found, Path(options.out), options.top))


def open_sources(options: Namespace) -> tuple[Points, Points | None, Points | None]:
    """The points of the index, of queries and of a bank, on the device."""
    from dataclasses import replace

    from scripts.hubness.files import Source
    from scripts.hubness.points import Encoding, open_points

    index = Source(options.file, options.key, options.labels, options.texts)
    sources = {"index": index}
    if options.queries is not None:
        named = (options.query_key, options.query_labels, options.query_texts)
        sources["queries"] = Source(options.queries, *named, role="query_")
    if options.get("bank") is not None:
        sources["bank"] = Source(options.bank, role="bank_")
    device = choose_device(options.device)
    encoding = Encoding(options.encoder, options.dim, options.split, device)
    opened = open_points(list(sources.values()), encoding)
    points = {name: replace(part, vectors=part.vectors.to(device)) for name, part in zip(sources, opened, strict=True)}
    return points["index"], points.get("queries"), points.get("bank")


def search_of(options: Namespace) -> Search:
    """How the command line wants neighbours to be found."""
    from dataclasses import fields

    from scripts.hubness.analysis import Search

    given = {field.name: options[field.name] for field in fields(Search) if options.get(field.name) is not None}
    return Search(**given, methods_metric=options.metric)


def _publish(warnings: Iterable[str], shown: Iterable[Report], written: Iterable[Path]) -> None:
    for warning in warnings:
        print(f"warning: {warning}")
    for table in shown:
        table.show()
    for path in written:
        print(f"likeness: wrote {path}")


COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "analyse": analyse,
    "reduce": reduce,
    "compare": compare,
    "lm": language,
}
SUMMARIES: dict[str, tuple[str, Callable[[Parser], None]]] = {
    "analyse": ("Every index of hubness beside what chance gives, and the largest hubs", _analyse_arguments),
    "reduce": ("Reduce hubness by one method: neighbours, vectors and indexes to go on with", _reduce_arguments),
    "compare": ("Methods that reduce hubness side by side, with tests of what they gain", _compare_arguments),
    "lm": ("Prediction hubs of a causal language model, and what frequency has to do with them", _language_arguments),
}
