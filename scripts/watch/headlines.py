"""What of a run's metrics is shown: its losses and scores as curves, of each other family the newest of a few."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from scripts.report.curves import Binned, Metrics
from scripts.report.metric_figures import DECADES, MINIMISED, own_keys
from scripts.report.sections.families import family_of
from scripts.report.sections.overview import MAIN
from scripts.reporting import shown

CURVES, VALUES = 5, 4  # that are shown, at most
BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-=+*#@"
HUGE = 1e150  # what is larger would overflow in means
# What is shown of a family, the first first, where it has any of that; else the first of its keys.
FIRST = {
    "bound": (r"val/(diffusion|latent|reconstruction|context)$",),
    "similarity": (r".*/(m_cca_f|linear_cka)(/mean)?$", r".*/(kl|d_llv|d_svd_f)(/mean)?$"),
    "hubness": (r".*/k_skewness$", r".*/robin_hood$", r".*/antihub_rate$"),
    "prediction_hubs": (r".*/k_skewness$", r".*/robin_hood$", r".*/hub_occurrence$"),
}
SHOWN = ("bound", "encoder", "similarity", "layers", "labels", "hubness", "prediction_hubs", "probes", "other")


@dataclass(frozen=True)
class Value:
    """The newest value of a metric, and what chance gives, where that is logged beside it."""

    name: str
    value: float
    chance: float | None


def curves(metrics: Metrics) -> dict[str, Binned]:
    """Losses and scores by key, of training and validation."""
    keys = [key for key in own_keys([*metrics.curves]) if re.match("train/|val/", key) and family_of(key) == "training"]
    known = [key for key in MAIN if key in keys]
    return {key: metrics.curves[key] for key in [*known, *sorted({*keys} - {*known})][:CURVES]}


def values(metrics: Metrics) -> dict[str, list[Value]]:
    """The newest values of each other family, by its name."""
    families: dict[str, list[str]] = {name: [] for name in SHOWN}
    for key in own_keys(sorted(metrics.last)):
        families.get(family_of(key), []).append(key)
    return {name: [_value(key, metrics) for key in _first(name, keys)] for name, keys in families.items() if keys}


def _first(family: str, keys: list[str]) -> list[str]:
    known = [key for pattern in FIRST.get(family, ()) for key in keys if re.match(pattern, key)]
    return (known or keys)[:VALUES]


def _value(key: str, metrics: Metrics) -> Value:
    return Value(key.removesuffix("/mean").partition("/")[2] or key, metrics.last[key], metrics.last.get(f"{key}_null"))


def score(metrics: Metrics) -> str:
    """The newest validation score that says most, with its name: ``bpd 2.9134``."""
    key = next((key for key in curves(metrics) if key.startswith("val/")), None)
    return "" if key is None else f"{key.removeprefix('val/')} {shown(metrics.last[key])}"


def sparkline(key: str, curve: Binned, width: int, bars: str = BARS) -> str:
    """A curve as at most ``width`` bars, the lowest its least value, the highest its greatest.

    Of a loss the highest is all of the greatest tenth, so that its beginning does not flatten the rest, and heights are
    logarithms where decades are left.
    """
    parts = np.array_split(np.clip(curve.mean, -HUGE, HUGE), min(width, len(curve.mean)))
    means = np.array([part.mean() for part in parts])
    if key.rpartition("/")[2] in MINIMISED:
        means = np.minimum(means, np.quantile(means, 0.9))
        means = np.log(means) if means.min() > 0 and means.max() > DECADES * means.min() else means
    span = float(np.ptp(means)) or 1.0
    heights = np.rint((means - means.min()) / span * (len(bars) - 1)).astype(int)
    return "".join(bars[height] for height in heights)
