"""How alike finished runs, checkpoints or siblings are: ``python -m scripts.compare RUN_OR_CKPT ... --data FILE``."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentError, ArgumentParser

from scripts.errors import door
from scripts.parsing import Parser

if TYPE_CHECKING:  # everything that takes time to import waits until the command line is known to be right
    import pytorch_lightning as pl
    import torch

    from likeness.measures.kinds import Measure
    from likeness.protocols import SoftmaxModel
    from scripts.comparison import Comparison

ROOT = Path(__file__).resolve().parents[1]  # holds configs/, in an installed copy too
NamedModels = list[tuple[str, "SoftmaxModel"]]


def main(argv: Sequence[str] | None = None) -> int:
    """Load, evaluate, print, save; raises what went wrong."""
    arguments = build_parser().parse_args(argv)
    from likeness.measures.catalogue import select
    from scripts.comparison import compare

    measures = select(arguments.measures)
    require_nulls(arguments.nulls, measures)
    models = load_models(arguments.models)
    device = choose_device(arguments.device)
    data = load_data(Path(arguments.data) if arguments.data else default_data(arguments.models[0]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        comparison = compare(models, data, arguments.split, measures, device, arguments.max_stored, arguments.nulls)
    for warning in caught:
        print(f"likeness: warning: {warning.message}", file=sys.stderr)
    publish(comparison, Path(arguments.out))
    return 0


def build_parser() -> ArgumentParser:
    """The command line of this door."""
    parser = Parser(
        prog="likeness compare",
        description="Measure how alike models are, on data that none of them need have seen.",
        epilog="--debug shows the traceback of an error.",
    )
    parser.add_argument("models", nargs="+", metavar="RUN_OR_CKPT", help="Runs, checkpoints, or members: demo#3.")
    parser.add_argument("--data", type=str | None, help="A data config; by default that of the first run.")
    parser.add_argument("--split", type=Literal["test", "val"], default="test", help="The split to compare on.")
    parser.add_argument("--out", type=str, default="runs/comparison", help="Where tables and figures are written.")
    parser.add_argument("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="Where models run.")
    parser.add_argument("--measures", type=str, nargs="+", default=["kl", "m_cca"], help="Names of measures.")
    parser.add_argument("--max_stored", type=int, default=10_000, help="Inputs kept for measures beyond sums.")
    parser.add_argument("--nulls", type=int, default=0, help="Permutations for what unrelated models would score.")
    return parser


def require_nulls(permutations: int, measures: Mapping[str, Measure]) -> None:
    """Raise ValueError where permutations are asked for and none of the measures has a null by permutation."""
    from likeness.measures.kinds import OfSamples
    from likeness.measures.peers import PEERS

    if permutations < 0:
        raise ValueError(f"--nulls takes a number of permutations, got {permutations}")
    if permutations and not any(isinstance(measure, OfSamples) for measure in measures.values()):
        raise ValueError(
            f"--nulls needs measures of samples, such as --measures {' '.join(PEERS)}; got {', '.join(measures)}"
        )


def load_models(paths: Sequence[str]) -> NamedModels:
    """The models of all runs and checkpoints under short names; raises ValueError for fewer than two."""
    from callbacks.model_names import short_names
    from lightning_modules.checkpoints import load_softmax_models

    models = [named for path in paths for named in load_softmax_models(path)]
    if len(models) < 2:
        raise ValueError(f"comparing takes at least two models, and {paths[0]} is one")
    names = short_names([name for name, _ in models])
    return [(name, model) for name, (_, model) in zip(names, models, strict=True)]


def default_data(path: str) -> Path:
    """The configuration of the run that a run directory, checkpoint or member belongs to."""
    location = Path(path if Path(path).exists() else path.rpartition("#")[0])
    run = location if location.is_dir() else location.parent.parent
    if not (run / "config.yaml").is_file():
        raise FileNotFoundError(f"name the data with --data: there is no {run / 'config.yaml'} to take them from")
    return run / "config.yaml"


def load_data(path: Path) -> pl.LightningDataModule:
    """The datamodule of a YAML file with a ``data`` section; raises naming the file and the key that is wrong."""
    import yaml
    from pytorch_lightning import LightningDataModule

    if not path.is_file() and not (ROOT / path).is_file():
        raise FileNotFoundError(f"there is no data config {path}")
    path = path if path.is_file() else ROOT / path
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"data config {path} is not YAML: {error}") from error
    if not isinstance(content, dict) or "data" not in content:
        raise ValueError(f"data config {path} has no key 'data'")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    try:
        config = parser.parse_object({"data": content["data"]})
    except ArgumentError as error:
        raise ValueError(f"data config {path}: {error}") from error
    data: pl.LightningDataModule = parser.instantiate(config).data
    return data


def choose_device(name: str) -> torch.device:
    """The device of this name, ``auto`` being a GPU where there is one; raises ValueError where it is missing."""
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ValueError("device cuda was asked for, but torch sees no CUDA device")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def publish(comparison: Comparison, folder: Path) -> None:
    """Print the tables, write them and the figures into ``folder``, and name what was written."""
    from rich.console import Console

    from callbacks.figures import save_figure
    from scripts import comparison_tables as tables

    console = Console()
    console.print(tables.model_table(comparison))
    console.print(tables.measure_table(comparison))
    folder.mkdir(parents=True, exist_ok=True)
    written = [
        tables.write_models(comparison, folder / "models.csv"),
        tables.write_pairs(comparison, folder / "comparison.csv"),
    ]
    written += [save_figure(figure, folder / f"{name}.png") for name, figure in comparison.figures()]
    for path in written:
        print(f"likeness: wrote {path}")


if __name__ == "__main__":
    door(main)
