"""The papers' experiments: ``python -m scripts.study {kl_to_zero,constructed,width,...}``; ``--help`` lists them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jsonargparse import Namespace

from scripts.cli.entry_point import Parser

# What stands here is read before the command line is known to be right; what a study needs is imported in its runner.

DIFFENC = "configs/experiment/digits_diffenc_vs_vdm.yaml"


class Study(NamedTuple):
    """One experiment: what it shows, its options, and what runs it."""

    summary: str
    add_arguments: Callable[[Parser], None]
    run: Callable[[Namespace, Path], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one study; raises what went wrong."""
    arguments = build_parser().parse_args(argv)
    options = arguments[arguments.study]
    STUDIES[arguments.study].run(options, Path(options.out))
    return 0


def build_parser() -> Parser:
    """One subcommand for each study."""
    parser = Parser(prog="likeness study", description="Run an experiment of the papers: its table and its figure.")
    commands = parser.add_subcommands(dest="study")
    for name, study in STUDIES.items():
        command = Parser(description=study.summary)
        study.add_arguments(command)
        command.add_argument("--out", type=str, default=f"runs/{name}", help="Where everything is written.")
        commands.add_subcommand(name, command, help=study.summary)
    return parser


def _no_arguments(command: Parser) -> None:
    """This study has no choices."""


def _kl_to_zero(options: Namespace, out: Path) -> None:
    from scripts.study import kl_to_zero

    kl_to_zero.run(out)


def _constructed(options: Namespace, out: Path) -> None:
    from scripts.study import constructed

    constructed.run(out)


def _width_arguments(command: Parser) -> None:
    add = command.add_argument
    add("--small", action="store_true", help="K = 4, 6, widths 16, 64, 8 seeds and 3,000 steps: some minutes.")
    add("--classes", type=int, nargs="+", help="Numbers of labels K; 4 6 10 18 in the paper.")
    add("--widths", type=int, nargs="+", help="Of the networks; 16 32 64 128 256 in the paper.")
    add("--seeds", type=int | None, help="Classifiers at each K and width; 20 in the paper.")
    add("--steps", type=int | None, help="Of training; 15,000 in the paper.")
    add("--learning_rate", type=float | None, help="Of Adam; 1e-4 in the paper.")
    add("--min_accuracy", type=float, default=0.9, help="Seeds that are no more accurate than this do not count.")
    add("--search", type=Literal["sampled", "exact"], default="sampled", help="How d_LLV finds its inputs.")
    add("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="Where models are trained.")


def _width(options: Namespace, out: Path) -> None:
    from dataclasses import replace

    from likeness.similarity.options import ComparisonOptions
    from scripts.study import width

    names = ("classes", "widths", "seeds", "steps", "learning_rate")
    chosen = {name: options[name] for name in names if options[name] is not None}
    setting = replace(width.SMALL if options.small else width.FULL, **chosen)
    width.run(out, setting, options.min_accuracy, ComparisonOptions(search=options.search), options.device)


def _loss_difference_arguments(command: Parser) -> None:
    add = command.add_argument
    add("runs", nargs="*", metavar="RUN", default=["runs/width"], help="Runs, checkpoints, or folders of runs.")
    add("--data", type=str | None, help="A data config; by default that of each run.")
    add("--split", type=Literal["test", "val"], default="test", help="The split to compare on.")
    add("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="Where models run.")


def _loss_difference(options: Namespace, out: Path) -> None:
    from scripts.inputs import choose_device
    from scripts.study import loss_difference

    loss_difference.run(options.runs, _path(options.data), options.split, out, choose_device(options.device))


def _cosines_arguments(command: Parser) -> None:
    add = command.add_argument
    add(
        "model",
        nargs="?",
        default="runs/demo#0",
        metavar="RUN",
        help="A run or checkpoint with M = 2; RUN#3 is a member.",
    )
    add("--pair", type=str, nargs=2, default=["0", "1"], metavar=("A", "B"), help="Two labels.")
    add("--cosines", type=float, nargs="+", default=[0.8, 1.0, -1.0], help="What to make of their angle.")
    add("--data", type=str | None, help="A data config; by default that of the run.")
    add("--split", type=Literal["test", "val"], default="test", help="The split to embed.")


def _cosines(options: Namespace, out: Path) -> None:
    from scripts.study import cosines

    first, second = options.pair
    cosines.run(options.model, (first, second), options.cosines, _path(options.data), options.split, out)


def _diffenc_vs_vdm_arguments(command: Parser) -> None:
    add = command.add_argument
    add("--config", type=str, default=DIFFENC, help="The training of the DiffEnc; the other two follow from it.")
    add(
        "--small", action="store_true", help="2 seeds, 4 steps, T = 4 and few samples: tries everything, shows nothing."
    )
    add("--seeds", type=int | None, help="Trainings of each model; 3 by default.")
    add("--steps", type=int | None, help="Of training; by default those of the configuration.")
    add("--draws", type=int | None, help="Of the noise of each evaluated sample; 10 by default.")
    add("--depths", type=int, nargs="*", help="T of the ratio experiment, 4 10 50 100 by default; none leaves it out.")
    add("--ratio_steps", type=int | None, help="Of training a variance ratio; 300 by default.")
    add("--limit", type=int | None, help="The most samples of each split to evaluate on.")
    add("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="Where models are trained.")


def _diffenc_vs_vdm(options: Namespace, out: Path) -> None:
    from scripts.study.diffenc_vs_vdm import Setting, run

    small = {"seeds": 2, "steps": 4, "draws": 2, "depths": [4], "ratio_steps": 4, "limit": 20} if options.small else {}
    names = ("seeds", "steps", "draws", "depths", "ratio_steps", "limit")
    chosen = {name: options[name] for name in names if options[name] is not None}
    run(out, Setting(Path(options.config), **{**small, **chosen}), options.device)


def _hubness_grid_arguments(command: Parser) -> None:
    add = command.add_argument
    add("--paper", action="store_true", help="Everything that the paper has, as far as it is at hand: hours, or days.")
    add("--data", type=str, nargs="*", help="docstrings (default), newsgroups20, ag_news, yahoo_answers, or configs.")
    add("--embeddings", type=str, nargs="*", help="Files of embeddings with labels, for the hubness command.")
    add("--models", type=str, nargs="*", help="tfidf (default), sentence-transformers models, runs or checkpoints.")
    add("--train", type=str, nargs="*", help="Encoders: small (default), mpnet, distilroberta, minilm; none is none.")
    add("--heads", type=str, nargs="+", help="Of the trained ones: none n by default, none z n c c_n in the paper.")
    add("--losses", type=str, nargs="+", help="Of training: cosine by default, and euclidean in the paper.")
    add("--seeds", type=int | None, help="Trainings with each head and loss; 2 by default.")
    add("--steps", type=int | None, help="Of training; by default those of its configuration.")
    add(
        "--methods",
        type=str,
        nargs="+",
        help="Reductions, as the hubness command takes them; the base is always there.",
    )
    add("--k", type=int | None, help="Neighbours whose hubness is measured; 10 by default.")
    add("--weights", type=Literal["uniform", "distance"] | None, help="Of votes: uniform by default, distance.")
    add("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="Where models and methods run.")


def _hubness_grid(options: Namespace, out: Path) -> None:
    from dataclasses import replace

    from scripts.study import hubness_grid

    def chosen(**names: str) -> dict[str, Any]:
        return {field: options[name] for field, name in names.items() if options[name] is not None}

    setting = hubness_grid.PAPER if options.paper else hubness_grid.DEFAULT
    training = chosen(families="train", heads="heads", losses="losses", seeds="seeds", steps="steps")
    parts: dict[str, Any] = {
        "training": replace(setting.training, **training),
        "protocol": replace(setting.protocol, **chosen(k="k", weights="weights")),
    }
    own = chosen(data="data", embeddings="embeddings", models="models", methods="methods")
    hubness_grid.run(out, replace(setting, **parts, **own), options.device)


def _path(name: str | None) -> Path | None:
    return Path(name) if name else None


STUDIES = {
    "kl_to_zero": Study("KL goes to zero, representations stay apart (Table 1)", _no_arguments, _kl_to_zero),
    "constructed": Study("Representations against d_LLV, with both bounds (Fig 16)", _no_arguments, _constructed),
    "width": Study("Wider networks are more alike (Fig 3, 17, 18): trains, resumes", _width_arguments, _width),
    "loss_difference": Study(
        "Near losses do not mean like representations (Fig 5)", _loss_difference_arguments, _loss_difference
    ),
    "cosines": Study("One model with two labels at any cosine (paper B)", _cosines_arguments, _cosines),
    "diffenc_vs_vdm": Study(
        "VDM, DiffEnc-nt and DiffEnc, and variance ratios (paper D): trains, resumes",
        _diffenc_vs_vdm_arguments,
        _diffenc_vs_vdm,
    ),
    "hubness_grid": Study(
        "What reductions of hubness do to hubness and to k-NN error (paper C): trains, resumes",
        _hubness_grid_arguments,
        _hubness_grid,
    ),
}
