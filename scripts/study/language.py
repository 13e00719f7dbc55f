"""Language models: siblings over training, and a real one against its copies.

Papers A and Nielsen, Macocco & Baroni 2025 (arXiv 2502.10201) at a size that two cores train in under an hour: whether
like likelihoods mean like representations, what width and training do, and which tokens are prediction hubs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from likeness.figures.style import PAGE, PALETTE, blank, in_style
from scripts.cli.entry_point import UsageError
from scripts.hubness.points import BUILT_IN
from scripts.inputs import choose_device
from scripts.reporting import Report, Row, publish
from scripts.study.language_copies import COPIES, CopyStudy, measure_copies
from scripts.study.language_siblings import SMALL, Setting, measure_siblings
from scripts.study.training_run import given

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FULL = Setting(widths=(32, 64, 128), seeds=4, measured=(50, 150, 300, 600))
PANELS = {
    "nll": "NLL, nats",
    "kl": "KL of two siblings, nats",
    "term_1": "term 1 of d_LLV",
    "m_cca_f": "m_CCA of f (dots: of noise)",
    "k_skewness": "k-skewness of predictions",
    "spearman_all": "Spearman of N and frequency",
}
SIBLINGS = ("width", "step", "nll", "kl", "agreement", "term_1", "certificate", "d_svd_typical", "m_cca_f")
HUBS = ("width", "step", "k_skewness", "hubs", "spearman_hubs", "spearman_all", "gaussian_overlap", "accuracy")


def run(
    out: Path = Path("runs/language"),
    small: bool = False,
    widths: Sequence[int] | None = None,
    seeds: int | None = None,
    measured: Sequence[int] | None = None,
    model: str | None = None,
    texts: str | None = None,
    copies: Sequence[str] | None = None,
    tuned_on: str | None = None,
    positions: int = 8192,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Train siblings on docstrings and compare them as they learn; or, with a model, compare that with its copies.

    Args:
        out: Where everything is written. The same command continues.
        small: Widths 16 and 32, 2 seeds, 60 steps: a minute.
        widths: Widths of the siblings, in units; 32 64 128 by default.
        seeds: Siblings of each width; 4 by default.
        measured: Steps after which siblings are compared, the last one the end; 50 150 300 600 by default.
        model: A causal language model (hf:NAME, a folder or a GGUF file) that is compared with its copies, in the place
            of siblings.
        texts: What the model reads: docstrings, the default, or a file.
        copies: Copies of the model, all by default: int8, int4 (rounded to nearest), noise, rotated (the same model),
            gauge (the same f, g), pruned10, pruned30 (so many hundredths of the weights are 0), tuned (trained on).
        tuned_on: Texts on which the tuned copy is trained: docstrings or a file, by default those that the model reads.
        positions: Contexts at which models are compared.
        device: Where models are trained and run.
    """
    of_siblings = {"small": small or None, "widths": widths, "seeds": seeds, "measured": measured}
    others = given(**of_siblings) if model is not None else given(texts=texts, copies=copies, tuned_on=tuned_on)
    if others:
        raise UsageError(f"--{next(iter(others))} is for {'siblings, and --model was given' if model else 'a --model'}")
    if model is not None:
        texts = texts or BUILT_IN
        which = tuple(copies or COPIES)
        study = CopyStudy(model, texts, tuned_on or texts, which, positions, choose_device(device))
        rows = measure_copies(study, out)
        Report(f"{model} and its copies at {positions:,} positions of {study.texts}", rows).show()
        publish(out, tables={"copies": rows}, figures={})
        return
    setting = replace(SMALL if small else FULL, **given(widths=widths, seeds=seeds, measured=measured))
    found = measure_siblings(setting, out, positions, device)
    title = f"{setting.seeds} siblings a width; ± jackknife over seeds"
    Report(f"pairs of {title}", [printed(row, SIBLINGS) for row in found.means]).show()
    Report(f"prediction hubs of {title}", [printed(row, HUBS) for row in found.means]).show()
    Report("next tokens after a reduction of hubness, at the end", found.reduced_means).show()
    tables = {"pairs": found.pairs, "models": found.models, "means": found.means, "reduced": found.reduced}
    publish(out, tables=tables, figures={"language": draw(found.means)})


def printed(row: Row, names: Sequence[str]) -> Row:
    """Means with their standard errors as the terminal shows them."""
    shown: Row = {}
    for name in names:
        value, error = row.get(name), row.get(f"{name}_se")
        shown[name] = value if error is None or value is None else f"{value:.3f} ± {error:.3f}"
    return shown


@in_style()
def draw(means: Sequence[Row]) -> Figure:
    """A panel for each quantity: mean and standard error against the step, a line for each width."""
    caption = (
        "How sibling language models become alike as they learn, by width: mean and standard error over pairs or seeds."
        " Dotted is what unrelated models score."
    )
    figure = blank(PAGE, 4.6, caption)
    widths = sorted({row["width"] for row in means})
    for axes, (name, title) in zip(figure.subplots(2, 3).flatten(), PANELS.items(), strict=True):
        for width, colour in zip(widths, cycle(PALETTE), strict=False):
            own = [row for row in means if row["width"] == width and row[name] is not None]
            steps = [row["step"] for row in own]
            style: dict[str, Any] = {"color": colour, "marker": "o"}
            errors = [row[f"{name}_se"] or 0.0 for row in own]
            axes.errorbar(steps, [row[name] for row in own], errors, label=str(width), **style)
            if name == "m_cca_f":
                axes.plot(steps, [row["m_cca_f_of_noise"] for row in own], ":", color=colour)
        axes.set_title(title)
        axes.set(xlabel="training step", xscale="log")
        axes.set_xticks(steps := sorted({row["step"] for row in means}), [str(step) for step in steps])
        axes.minorticks_off()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, title="width", loc="outside lower center", ncols=len(widths))
    return figure
