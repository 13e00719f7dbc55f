"""What a dashboard shows of a run: which of its metrics stand together, told from its configuration."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

TERMS = ("reconstruction", "latent", "diffusion")
CLASSIFIERS = ("SoftmaxClassifier", "SiblingClassifiers")
DIFFUSION = ("VariationalDiffusion", "DiffEnc")
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
    if "SiblingClassifiers" in classes:
        for name, title in (("nll", "Validation NLL, nats"), ("accuracy", "Validation accuracy")):
            yield Panel(f"{title}: mean, best and worst sibling", _with_extremes(f"val/{name}", mean=""))
    elif "SoftmaxClassifier" in classes:
        yield Panel("Validation NLL, nats", ("val/nll",))
        yield Panel("Validation accuracy", ("val/accuracy",))
    if _any(DIFFUSION, classes):
        yield Panel("Validation bound, bits per dimension", ("val/bpd",))
    if "SentenceEncoder" in classes:
        yield Panel("Validation Spearman correlation", ("val/spearman",))


def _elbo(classes: Classes) -> Iterator[Panel]:
    if _any(DIFFUSION, classes):
        for term in TERMS:
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
    from likeness.measures.catalogue import MEASURES, select

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


def _system(classes: Classes) -> Iterator[Panel]:
    yield Panel("GPU, % of the time", ("system/gpu.0.gpu",), "system")
    yield Panel("GPU memory, %", ("system/gpu.0.memoryAllocated",), "system")
    yield Panel("CPU, %", ("system/cpu",), "system")
    yield Panel("Memory of the process, MB", ("system/proc.memory.rssMB",), "system")
    costs = tuple(f"{prefix}/seconds" for callback, prefix in COSTS.items() if callback in classes)
    if costs:
        yield Panel("Seconds that callbacks took", costs)


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
    "System": _system,
}
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
}
