"""Diffusion models: the terms of their bound, where it comes from, finite depths, samples and encoders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from likeness.pages.parts import Curve, Lines, Part, Section
from scripts.report.files import Rows, column, read_rows, table
from scripts.report.groups import Study
from scripts.report.metric_figures import Metric
from scripts.report.sections.families import Shown, metric_parts, picture_parts

BITS = "bits per dimension"
TERMS = (
    Metric("val/diffusion", "Diffusion term", BITS, "What denoising costs: nearly all of the bound."),
    Metric("val/reconstruction", "Reconstruction term", BITS, "The cost of grey levels from z_0."),
    Metric("val/latent", "Latent term", BITS, "How far z_1 is from the prior."),
    Metric("elbo/train/bpd", "Bound on training data", BITS, "Below the validation bound by the generalisation gap."),
    Metric("elbo/gap", "Generalisation gap", BITS, "Validation bound less that of as many training samples."),
    Metric("elbo/gamma_0", "Least noise, gamma(0)", "-log SNR"),
    Metric("elbo/gamma_1", "Most noise, gamma(1)", "-log SNR"),
)
PICTURES = ("depth_curve", "loss_by_gamma", "schedule", "samples", "sample_path", "encoder_change", "encoder_mean")
IN_BITS = ("bpd", "reconstruction", "latent", "diffusion", "context", "gap")
LINES = 12  # runs in a figure of files


def bound(study: Study) -> Section | None:
    """Terms of the ELBO, its bins by gamma, its value at finite depths."""
    files = [depth_figure(study), *bin_figures(study)]
    shown = Shown("bound", TERMS, 10, dict.fromkeys(IN_BITS, BITS), PICTURES)
    parts = [*(part for part in files if part is not None), *metric_parts(study, shown), *picture_parts(study, shown)]
    parts += [part for part in (_table(study, "encoder_profile"), _table(study, "gradient_norms")) if part is not None]
    about = "The negative ELBO is reconstruction + latent + diffusion, in bits per dimension; an upper bound on -log p."
    return Section("Bound", parts, about) if parts else None


def samples(study: Study) -> Section | None:
    """What was drawn of the models as they learned."""
    parts = picture_parts(study, Shown("samples", pictures=PICTURES))
    return Section("Samples", parts, "The slider goes back to earlier steps, where they were kept.") if parts else None


def encoder(study: Study) -> Section | None:
    """What depth-dependent encoders do to images."""
    shown = Shown("encoder", pictures=PICTURES)
    parts = [*metric_parts(study, shown), *picture_parts(study, shown)]
    return Section("Encoder", parts, "What the encoder makes of an image as noise is added to it.") if parts else None


def depth_figure(study: Study) -> Lines | None:
    """The bound by the number of steps T, with one variance and with fitted ones."""

    def curves(label: str, colour: int, rows: Rows) -> list[Curve]:
        finite = np.isfinite(column(rows, "num_steps"))
        lines = []
        for name, what, dashed in (("bpd", "equal variances", False), ("fitted", "fitted ratio", True)):
            y, error = column(rows, name), column(rows, f"{name}_se")
            known = finite & np.isfinite(y)
            x, y, error = column(rows, "num_steps")[known], y[known], np.nan_to_num(error[known])
            lines.append(Curve(f"{label}{what}", x, y, y - error, y + error, colour, dashed))
        return [line for line in lines if len(line.x)]

    return _of_files(
        study, "depth_curve", curves, "Bound at finite depth", "T, steps", BITS,
        "It falls towards the bound of infinite depth. Band: one standard error over samples.", log_x=True,
    )  # fmt: skip


def bin_figures(study: Study) -> list[Lines | None]:
    """The integrand of the diffusion loss, and its variance, by gamma."""

    def curves_of(name: str, error: str | None) -> Callable[[str, int, Rows], list[Curve]]:
        def curves(label: str, colour: int, rows: Rows) -> list[Curve]:
            last = np.nanmax(column(rows, "step")) if np.isfinite(column(rows, "step")).any() else np.nan
            own = [row for row in rows if row.get("step") == last]
            lines = []
            for split, dashed in (("val", False), ("train", True)):
                here = [row for row in own if row.get("split") == split]
                x, y = column(here, "gamma"), column(here, name)
                se = None if error is None else column(here, error)
                low, high = (None, None) if se is None else (y - se, y + se)
                lines.append(Curve(f"{label}{split}", x, y, low, high, colour, dashed))
            return [line for line in lines if np.isfinite(line.y).any()]

        return curves

    says = "Where the area under this curve lies the bound comes from. Band: one standard error."
    gamma = "gamma = -log SNR"
    return [
        _of_files(
            study, "loss_by_gamma", curves_of("integrand", "integrand_se"), "Diffusion loss by gamma", gamma,
            "bits/dim per unit of gamma", says,
        ),
        _of_files(
            study, "loss_by_gamma", curves_of("variance", None), "Variance of a sample's loss by gamma", gamma,
            "variance", "What makes the estimate noisy: flat is best.", suffix="_variance",
        ),
    ]  # fmt: skip


def _of_files(
    study: Study,
    file: str,
    curves: Callable[[str, int, Rows], list[Curve]],
    title: str,
    x: str,
    y: str,
    caption: str,
    *,
    log_x: bool = False,
    suffix: str = "",
) -> Lines | None:
    """A figure of a table that callbacks left, of one run of each group."""
    found: list[Curve] = []
    several = len(study.groups) > 1
    for group in study.groups[:LINES]:
        for run in group.runs:
            if rows := read_rows(run.path / "figures" / f"{file}.csv"):
                found += curves(f"{group.label}, " if several else "", group.colour, rows)
                break
    if study.repeated:
        caption += " Of each configuration one run."
    return Lines(f"{file}{suffix}", title, x, y, found, caption, log_x=log_x) if found else None


def _table(study: Study, name: str) -> Part | None:
    rows = [(run.name, read_rows(run.path / "figures" / f"{name}.csv", 300)) for run in study.runs[:LINES]]
    return table(name, f"{name.replace('_', ' ').capitalize()}, numbers", rows, folded=True)
