"""A W&B workspace for a run's metrics: ``python -m scripts.dashboard RUN_OR_CONFIG [--entity NAME --save]``.

Which panels it has, and which metrics stand together in one, is told from the run's configuration.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from scripts.cli.configurations import read_configuration
from scripts.cli.entry_point import Parser, run_command

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

TERMS = ("reconstruction", "latent", "diffusion")  # and that of a context where there is one
CLASSIFIERS = ("SoftmaxClassifier", "SiblingClassifiers")
SINGLE = ("SoftmaxClassifier", "LanguageModel")  # the likelihood of labels, or of tokens
SIBLINGS = ("SiblingClassifiers", "SiblingLanguageModels")
DIFFUSION = ("VariationalDiffusion", "DiffEnc")
FIGURES_OF_DIFFUSION = {
    "LossByGamma": ("loss_by_gamma",),
    "ScheduleDiagnostics": ("schedule",),
    "EncoderDiagnostics": ("encoder_profile",),
    "DepthCurve": ("depth_curve",),
    "GradientNorms": ("gradient_norms",),
    "SampleFigures": ("samples", "sample_path"),
}
INDICES = {
    "k_skewness": "Skewness of k-occurrence",
    "robin_hood": "Robin Hood index",
    "antihub_rate": "Share of antihubs",
    "hub_occurrence": "Share of neighbours that are hubs",
}
COSTS = {  # the first part of the key, by callback
    "ElboDiagnostics": "elbo",
    "LossByGamma": "loss_by_gamma",
    "ScheduleDiagnostics": "schedule",
    "EncoderDiagnostics": "encoder",
    "DepthCurve": "depth_curve",
    "SampleFigures": "samples",
    "RepresentationSimilarity": "similarity",
    "LabelGeometry": "labels",
    "Hubness": "hubness",
    "PredictionHubs": "hubness/prediction",
    "Probes": "probes",
}
X_AXIS = "trainer/global_step"
CLOCK = "_runtime"  # seconds: system metrics have no steps
COLUMNS, ROWS = 3, 2
Options = dict[str, Any]  # the init_args of a class
Classes = dict[str, Options]  # of the model and the callbacks, by class name


@dataclass(frozen=True)
class Panel:
    """One plot over training steps or over the machine's clock, some pictures, or a table.

    ``keys`` are those under which the run logs them.
    """

    title: str
    keys: tuple[str, ...]
    kind: Literal["curves", "pictures", "table", "system"] = "curves"


@dataclass(frozen=True)
class Section:
    """Panels under a heading."""

    name: str
    panels: tuple[Panel, ...]


def sections(config: Options) -> list[Section]:
    """The sections of a run with this nested configuration; one that would be empty is left out.

    Raises ValueError where the configuration names no model.
    """
    classes = _classes(config)
    found = [Section(name, tuple(panels(classes))) for name, panels in SECTIONS.items()]
    return [section for section in found if section.panels]


def _classes(config: Options) -> Classes:
    """The options of the model and of each callback, by the name of its class."""
    model = config.get("model") or {}
    if "class_path" not in model:
        raise ValueError("the configuration names no model: give a run, or the configuration of an experiment")
    trainer = config.get("trainer") or {}
    callbacks = [*(trainer.get("callbacks") or []), *(trainer.get("callbacks+") or [])]
    return {
        part["class_path"].rpartition(".")[2]: part.get("init_args") or {}
        for part in (model, *callbacks)
        if "class_path" in part
    }


def _training(classes: Classes) -> Iterator[Panel]:
    yield Panel("Training loss", ("train/loss",))
    if _any(SIBLINGS, classes):
        for name, title in (("nll", "Validation NLL, nats"), ("accuracy", "Validation accuracy")):
            yield Panel(f"{title}: mean, best and worst sibling", _with_extremes(f"val/{name}", mean=""))
    elif _any(SINGLE, classes):
        yield Panel("Validation NLL, nats", ("val/nll",))
        yield Panel("Validation accuracy", ("val/accuracy",))
    if _any(DIFFUSION, classes):
        yield Panel("Validation bound, bits per dimension", ("val/bpd",))
        if any(classes.get(name, {}).get("flow_head") for name in DIFFUSION):
            yield Panel("Flow matching, bits per dimension", ("train/flow_matching",))
    if "SentenceEncoder" in classes:
        yield Panel("Validation Spearman correlation", ("val/spearman",))


def _elbo(classes: Classes) -> Iterator[Panel]:
    if _any(DIFFUSION, classes):
        has_context = any(classes.get(name, {}).get("context") for name in DIFFUSION)
        for term in (*TERMS, "context") if has_context else TERMS:
            yield Panel(f"{term.capitalize()} term, bits per dimension", (f"val/{term}",))
    if "ElboDiagnostics" in classes:
        yield Panel("Bound on training and validation data", ("elbo/train/bpd", "elbo/val/bpd"))
        yield Panel("Ends of the schedule, -log SNR", ("elbo/gamma_0", "elbo/gamma_1"))
        if classes["ElboDiagnostics"].get("gap_every_n_validations", 5) is not None:
            yield Panel("Generalisation gap, bits per dimension", ("elbo/gap",))
    for callback, names in FIGURES_OF_DIFFUSION.items():
        if callback in classes:
            yield _pictures(*names)


def _similarity(classes: Classes) -> Iterator[Panel]:
    from likeness.similarity.catalogue import MEASURES, select

    options = classes.get("RepresentationSimilarity")
    if options is None:
        return
    names = select(options.get("measures", ("kl", "m_cca")))
    for name in names:
        yield Panel(f"{MEASURES[name].label}, over pairs", _with_extremes(f"similarity/{name}", mean="/mean"))
    yield _pictures(*(f"similarity_{name}" for name in names))
    if _any(CLASSIFIERS, classes):
        yield _pictures("embeddings")


def _labels(classes: Classes) -> Iterator[Panel]:
    if "LabelGeometry" in classes:
        keys = tuple(f"labels/{name}" for name in ("raw", "centred", "invariant"))
        yield Panel("Rank correlation of label similarity and being probable together", keys)
        yield _pictures("label_similarity")
        yield Panel("Labels that similarity misjudges most", ("labels/disagreements",), "table")


def _hubness(classes: Classes) -> Iterator[Panel]:
    if "PredictionHubs" in classes:
        key = "hubness/prediction/k_skewness"
        yield Panel("Skewness of predictions, and by chance", (key, f"{key}_null"))
        yield Panel("Tokens that are hubs of predictions", ("hubness/prediction/hubs",))
    options = classes.get("Hubness")
    if options is None:
        return
    for layer in options.get("layers", ("embed",)):
        for index, title in INDICES.items():
            key = f"hubness/{layer}/{index}"
            yield Panel(f"{title} of {layer}, and by chance", (key, f"{key}_null"))
        if options.get("knn_accuracy", False):
            yield Panel(f"Accuracy of nearest neighbours in {layer}", (f"hubness/{layer}/knn_accuracy",))
    yield _pictures("hubness")
    yield Panel("Largest hubs", ("tables/hubs",), "table")


def _layers(classes: Classes) -> Iterator[Panel]:
    from likeness.similarity.layers.matrices import select_measures

    if (options := classes.get("LayerSimilarity")) is not None:
        measures = select_measures(options.get("measures", ("unbiased_linear_cka",)))
        yield _pictures(*(f"{_prefix(options)}_{name}" for name in measures))
    if (options := classes.get("Probes")) is not None:
        for layer in options.get("layers", ("embed",)):
            keys = tuple(f"probes/{layer}/{kind}" for kind in ("linear", "knn"))
            yield Panel(f"Accuracy of a linear probe and of nearest neighbours in {layer}", keys)


def _prefix(layer_similarity: Options) -> str:
    prefix: str = layer_similarity.get("prefix", "layers")
    return prefix


def _system(classes: Classes) -> Iterator[Panel]:
    yield Panel("GPU, % of the time", ("system/gpu.0.gpu",), "system")
    yield Panel("GPU memory, %", ("system/gpu.0.memoryAllocated",), "system")
    yield Panel("CPU, %", ("system/cpu",), "system")
    yield Panel("Memory of the process, MB", ("system/proc.memory.rssMB",), "system")
    prefixes = [prefix for callback, prefix in COSTS.items() if callback in classes]
    if (options := classes.get("LayerSimilarity")) is not None:
        prefixes.append(_prefix(options))
    if prefixes:
        yield Panel("Seconds that callbacks took", tuple(f"{prefix}/seconds" for prefix in prefixes))


def _any(names: tuple[str, ...], classes: Classes) -> bool:
    return any(name in classes for name in names)


def _with_extremes(key: str, mean: str) -> tuple[str, ...]:
    return f"{key}{mean}", f"{key}/min", f"{key}/max"


def _pictures(*names: str) -> Panel:
    return Panel(names[0].replace("_", " ").capitalize(), tuple(f"figures/{name}" for name in names), "pictures")


SECTIONS: dict[str, Callable[[Classes], Iterator[Panel]]] = {
    "Training": _training,
    "ELBO": _elbo,
    "Similarity": _similarity,
    "Labels": _labels,
    "Hubness": _hubness,
    "Layers": _layers,
    "System": _system,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print what the workspace holds, or save it and print where it is; raises what went wrong."""
    arguments = build_parser().parse_args(argv)
    shown = sections(read_config(Path(arguments.run)))
    if not arguments.save:
        print(json.dumps(summary(shown), indent=2))
        return 0
    name = arguments.name or Path(arguments.run).stem
    print(save(build(shown, entity=arguments.entity, project=arguments.project, name=name)))
    return 0


def build_parser() -> ArgumentParser:
    """The command line of this command."""
    parser = Parser(
        prog="likeness dashboard",
        description="Print, or with --save make on W&B, a workspace of plots, pictures and tables for runs of a kind.",
    )
    add = parser.add_argument
    add("run", metavar="RUN_OR_CONFIG", help="A run directory, or the configuration file of an experiment.")
    add("--entity", type=str | None, help="The W&B user or team; by default yours.")
    add("--project", type=str, default="likeness", help="The W&B project that the runs log to.")
    add("--name", type=str | None, help="Name of the workspace; by default that of the run or file.")
    add("--save", action="store_true", help="Make it: needs the network and an account.")
    return parser


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a run directory, or of a file. Raises FileNotFoundError, or UsageError for another file."""
    file = path / "config.yaml" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{path} is neither a run directory with a config.yaml nor a configuration file")
    return read_configuration(file)


def summary(shown: Sequence[Section]) -> dict[str, list[dict[str, Any]]]:
    """The panels by section, as plain values."""
    return {
        section.name: [{"title": panel.title, "kind": panel.kind, "keys": list(panel.keys)} for panel in section.panels]
        for section in shown
    }


def build(shown: Sequence[Section], *, entity: str | None, project: str, name: str) -> Workspace:
    """The workspace, not yet saved: nothing is sent. Runs are grouped, so that seeds show as a mean and a band.

    Raises ModuleNotFoundError, naming the extra, where wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.workspaces as ws
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('dashboards need wandb-workspaces: pip install -e ".[dashboard]"') from error

    layout = ws.SectionLayoutSettings(columns=COLUMNS, rows=ROWS)
    return ws.Workspace(
        entity=entity or "",
        project=project,
        name=name,
        sections=[
            ws.Section(
                name=section.name,
                panels=[_panel(panel) for panel in section.panels],
                is_open=section.name != "System",
                layout_settings=layout,
            )
            for section in shown
        ],
        settings=ws.WorkspaceSettings(x_axis=X_AXIS, group_by_prefix="first"),
        runset_settings=ws.RunsetSettings(groupby=[ws.Metric("Group")]),
    )


def save(workspace: Workspace) -> str:
    """Make the workspace on W&B and answer with its address."""
    if not workspace.entity:
        import wandb

        workspace.entity = str(wandb.Api().default_entity)
    workspace.save()
    return str(workspace.url)


def _panel(panel: Panel) -> Any:
    from wandb_workspaces.reports.v2 import interface as wr

    if panel.kind == "pictures":
        return wr.MediaBrowser(title=panel.title, media_keys=list(panel.keys))
    if panel.kind == "table":
        return wr.WeavePanelSummaryTable(table_name=panel.keys[0])
    x = CLOCK if panel.kind == "system" else X_AXIS
    return wr.LinePlot(title=panel.title, x=x, y=list(panel.keys))


if __name__ == "__main__":
    run_command(main)
