"""The meaning of the angles between a head's labels: ``python -m scripts.inspect_head CKPT_OR_WEIGHTS --pair A B``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser, Namespace

from scripts.cli.entry_point import Parser
from scripts.cli.given import require_needed
from scripts.inputs import choose_device

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from likeness.label_geometry.similarity import Progress
    from scripts.inspect_head.features import Features
    from scripts.inspect_head.heads import Head
    from scripts.inspect_head.inspection import Inspection

WEIGHTS = "A run, a .ckpt, .pt, .npy, .safetensors or .gguf file, a Hugging Face model directory, or hf:NAME"
NEEDS = {"pair": ("cosine", "save_equivalent"), "neighbours": ("top",), "data": ("split",)}
MAX_DRAWN = 60  # labels of which all pairs are drawn; of more, a histogram


def main(argv: Sequence[str] | None = None) -> int:
    """Read, measure, print, save; raises what went wrong."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    _check(arguments)
    require_needed(parser, arguments, NEEDS)
    from scripts.inspect_head.heads import find_pair, open_head
    from scripts.inspect_head.inspection import inspect_head

    device = choose_device(arguments.device)
    labels = Path(arguments.labels) if arguments.labels else None
    head = open_head(arguments.model, arguments.key, labels)
    if head.cap is not None and arguments.save_equivalent:
        raise ValueError(f"--save_equivalent: {head.source} caps its logits, so a translated head is not equivalent")
    pair = find_pair(head, *arguments.pair) if arguments.pair else None
    queries = [head.labels.find(name) for name in arguments.neighbours or ()]
    features = read_features(head, arguments, device)
    inspection = inspect_head(
        head, features, pair, arguments.cosine, queries, arguments.top, arguments.winners, device, _watch
    )
    publish(inspection, Path(arguments.out))
    if arguments.save_equivalent:
        save_equivalent(inspection, Path(arguments.save_equivalent))
    return 0


def build_parser() -> ArgumentParser:
    """The command line of this command."""
    parser = Parser(
        prog="likeness inspect_head",
        description="Show what cosines between label vectors can and cannot say: how they move at equal probabilities, "
        "which labels are near in coordinates that no change of gauge moves, and which labels can win at all.",
    )
    add = parser.add_argument
    add("model", metavar="CKPT_OR_WEIGHTS", help=f"{WEIGHTS}; RUN#3 is member 3 of siblings.")
    add("--key", type=str | None, help="The matrix in a file that holds several.")
    add("--labels", type=str | None, help="Names of the labels: a line each, or JSON.")
    add("--pair", type=str, nargs=2, metavar=("A", "B"), help="Two labels to show equivalent heads for.")
    add("--cosine", type=float, nargs="+", default=[-1.0, 1.0], help="The cosines to give that pair, in [-1, 1].")
    add("--neighbours", type=str, nargs="+", metavar="LABEL", help="Labels whose nearest labels to list.")
    add("--top", type=int, default=10, help="How many nearest labels.")
    add("--winners", type=int, default=2000, help="How many labels to try for being the prediction at all.")
    add("--features", type=str | None, help="Features f(x) [N, M] as .npy, for what depends on the inputs.")
    add("--data", type=str | None, help="A data config: the checkpoint's own f is asked for the features.")
    add("--split", type=Literal["test", "val"], default="test", help="The split of the data.")
    add("--save_equivalent", type=str | None, help="Write the pair's equivalent heads: a .npy or .safetensors file.")
    add("--out", type=str, default="runs/inspect_head", help="Where tables and the figure are written.")
    add("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="Where it is computed.")
    return parser


def _check(arguments: Namespace) -> None:
    """Refuse what cannot be meant before anything is read."""
    from likeness.checks import require_positive

    require_positive(**{"--top": arguments.top})
    if arguments.winners < 0:
        raise ValueError(f"--winners must be at least 0, got {arguments.winners}")
    for index, cosine in enumerate(arguments.cosine):
        if not -1 <= cosine <= 1:
            raise ValueError(f"--cosine must lie in [-1, 1], got {cosine}")
        if cosine in arguments.cosine[:index]:
            raise ValueError(f"--cosine names {cosine} twice")
    if arguments.features and arguments.data:
        raise ValueError("--features and --data both name the features: give one of them")
    if arguments.save_equivalent and Path(arguments.save_equivalent).suffix not in (".npy", ".safetensors"):
        raise ValueError(f"--save_equivalent writes .npy or .safetensors, got {arguments.save_equivalent}")


def read_features(head: Head, arguments: Namespace, device: torch.device) -> Features | None:
    """The features that were named, if any."""
    from scripts.inspect_head.features import features_of_data, features_of_file

    if arguments.features:
        return features_of_file(Path(arguments.features), head.rows.shape[1])
    return features_of_data(head, Path(arguments.data), arguments.split, device) if arguments.data else None


def publish(inspection: Inspection, folder: Path) -> None:
    """Print the tables, write them and the figure into ``folder``, and name what was written."""
    from scripts import reporting
    from scripts.inspect_head import tables

    for title, rows in tables.printed(inspection):
        reporting.Report(title, rows).show()
    reporting.publish(folder, tables=tables.written(inspection), figures={"similarity": draw(inspection)})


def draw(inspection: Inspection) -> Figure:
    """Heat maps of up to 60 labels; of more, the distribution of the similarities over pairs."""
    from likeness.figures.labels import label_heatmaps, similarity_histogram
    from scripts.inspect_head.inspection import off_diagonal

    labels = inspection.head.labels
    if labels.count <= MAX_DRAWN:
        return label_heatmaps(inspection.matrices, [labels.printable(label) for label in range(labels.count)])
    measured = labels.count if inspection.sampled is None else len(inspection.sampled)
    of = "" if inspection.sampled is None else f" drawn from {labels.count:,}"
    values = {name: off_diagonal(matrix) for name, matrix in inspection.matrices.items()}
    return similarity_histogram(values, f"all pairs of {measured:,} labels{of}")


def save_equivalent(inspection: Inspection, path: Path) -> None:
    """Write the pair's equivalent heads in float64, one a file; with several the cosine asked for joins its name."""
    from scripts.inspect_head.files import write_translated

    assert inspection.pair is not None
    heads = inspection.pair.heads
    for cosine, head in heads.items():
        exact = f"{cosine:+}".removesuffix(".0")  # all digits, so that no two cosines share a name
        target = path if len(heads) == 1 else path.with_name(f"{path.stem}_cos{exact}{path.suffix}")
        write_translated(target, inspection.head.rows, head.translation, inspection.head.bias)
        print(f"likeness: wrote {target}")


def _watch(description: str) -> Progress:
    """A progress bar on the terminal for work in more than a few steps."""
    from functools import partial

    from likeness.progress import tracked

    return partial(tracked, description=description)
