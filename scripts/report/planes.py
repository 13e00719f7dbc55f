"""Tables of embeddings in the plane, ``figures/embeddings.csv``, whoever wrote them."""

from __future__ import annotations

import numpy as np

from likeness.figures.embeddings import MAX_PANELS, Panel, Planes
from scripts.report.files import Rows, column

LARGEST = 1e100  # coordinate that is believed
Points = list[tuple[str, np.ndarray]]  # classes and places


def read_planes(rows: Rows, most: int) -> Planes | None:
    """The first models of a table, ``most`` points of them in all, and label vectors; None where no point is known."""
    found = {vector: _by_model(rows, vector) for vector in ("f", "g")}
    models = [*found["f"]][:MAX_PANELS]
    points = {model: found["f"][model][: most // len(models)] for model in models}
    vectors = {model: dict(found["g"].get(model, ())) for model in models}
    labelled = list(dict.fromkeys(name for model in models for name in vectors[model]))
    classes = list(dict.fromkeys([*labelled, *(name for model in models for name, _ in points[model])]))
    last = {str(row.get("model")): row for row in rows}
    shares = {model: [column([last[model]], f"{axis}_share")[0] for axis in "xy"] for model in models}
    panels = [
        Panel(
            model,
            np.array([place for _, place in points[model]]),
            np.array([classes.index(name) for name, _ in points[model]]),
            np.array([vectors[model].get(name, np.zeros(2)) for name in labelled]).reshape(-1, 2),
            shares[model] if np.isfinite(shares[model]).all() else (),
        )
        for model in models
    ]
    return Planes(panels, classes, len(panels)) if panels else None


def _by_model(rows: Rows, vector: str) -> dict[str, Points]:
    """The points f(x) or g(y) of each model whose coordinates are numbers."""
    found: dict[str, Points] = {}
    places = np.stack([column(rows, "x"), column(rows, "y")], axis=1)
    for row, place in zip(rows, places, strict=True):
        if row.get("vector") == vector and (np.abs(place) < LARGEST).all():
            found.setdefault(str(row.get("model")), []).append((str(row.get("class")), place))
    return found
