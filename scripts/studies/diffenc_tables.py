"""Means over seeds of the DiffEnc study, their standard errors, and the test of the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import itemgetter
from statistics import fmean, stdev

from scripts.studies.output import StudyRow

TERMS = ("reconstruction", "latent", "diffusion", "bpd")
GAINS = ("gain_predicted", "gain_fitted", "gain_learned")
BPDS = ("bpd_one", "bpd_fitted", "bpd_learned")


def model_means(seeds: Sequence[StudyRow]) -> list[StudyRow]:
    """For each split and model the terms of the bound over seeds, with ``<term>_se``."""
    return _means(sorted(seeds, key=itemgetter("split")), ("split", "model"), TERMS)


def gain_means(ratios: Sequence[StudyRow]) -> list[StudyRow]:
    """For each model and T the bounds and gains over seeds, with ``<name>_se``."""
    return _means(ratios, ("model", "T"), (*BPDS, *GAINS))


def welch_tests(seeds: Sequence[StudyRow], model: str = "DiffEnc") -> list[StudyRow]:
    """Whether this model's bpd is lower than each other one's, by split: one-sided, unequal variances, over seeds.

    p is None where there are fewer than two seeds.
    """
    from scipy.stats import ttest_ind

    rows: list[StudyRow] = []
    for split in _distinct(seeds, "split"):
        bpd = {name: _values(seeds, {"split": split, "model": name}, "bpd") for name in _distinct(seeds, "model")}
        for other in (name for name in bpd if name != model):
            row: StudyRow = {"split": split, "hypothesis": f"{model} < {other}"}
            row |= {"difference": fmean(bpd[model]) - fmean(bpd[other]), "t": None, "p": None}
            if len(bpd[model]) > 1:
                found = ttest_ind(bpd[model], bpd[other], equal_var=False, alternative="less")
                row |= {"t": float(found.statistic), "p": float(found.pvalue)}
            rows.append(row)
    return rows


def printed_model(mean: StudyRow) -> StudyRow:
    """A row of :func:`model_means` as the terminal shows it."""
    row: StudyRow = {"split": mean["split"], "model": mean["model"]}
    row |= {"recon.": f"{mean['reconstruction']:.4f}", "latent": f"{mean['latent']:.4f}"}
    return row | {name: _with_error(mean, name) for name in ("diffusion", "bpd")}


def printed_gain(mean: StudyRow) -> StudyRow:
    """A row of :func:`gain_means` as the terminal shows it."""
    row = {"model": mean["model"], "T": mean["T"], "bpd": f"{mean['bpd_one']:.4f}"}
    return row | {name.removeprefix("gain_"): _with_error(mean, name) for name in GAINS}


def _with_error(mean: StudyRow, name: str) -> str:
    error = mean[f"{name}_se"]
    return f"{mean[name]:.4f}" + ("" if error is None else f" ±{error:.4f}")


def _means(rows: Sequence[StudyRow], by: Sequence[str], names: Sequence[str]) -> list[StudyRow]:
    groups = list(dict.fromkeys(tuple(row[name] for name in by) for row in rows))
    means: list[StudyRow] = []
    for group in groups:
        place = dict(zip(by, group, strict=True))
        mean: StudyRow = {**place, "seeds": len(_values(rows, place, names[0]))}
        for name in names:
            values = _values(rows, place, name)
            error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
            mean |= {name: fmean(values), f"{name}_se": error}
        means.append(mean)
    return means


def _values(rows: Sequence[StudyRow], place: StudyRow, name: str) -> list[float]:
    return [row[name] for row in rows if place.items() <= row.items()]


def _distinct(rows: Sequence[StudyRow], name: str) -> list[str]:
    return list(dict.fromkeys(row[name] for row in rows))
