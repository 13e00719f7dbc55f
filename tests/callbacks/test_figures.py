"""What figures show, where they go, and that a reader never sees half of one."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import LogNorm

from callbacks.figures import (
    PALETTE,
    as_image,
    embedding_scatter,
    label_places,
    save_figure,
    similarity_heatmap,
)
from likeness.measures.catalogue import MEASURES


def matrix(models: int, low: float = 0.5, high: float = 1.0) -> np.ndarray:
    values = np.random.default_rng(0).uniform(low, high, (models, models))
    np.fill_diagonal(values, np.nan)
    return values


def names(models: int) -> list[str]:
    return [f"run/{model}" for model in range(models)]


@pytest.mark.parametrize(("models", "written"), [(2, 2), (12, 132), (20, 0)])
def test_values_are_written_where_there_is_room(models: int, written: int) -> None:
    figure = similarity_heatmap(matrix(models), names(models), names(models), MEASURES["m_cca_f"])
    assert len(figure.axes[0].texts) == written
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == names(models)


@pytest.mark.parametrize(("name", "direction"), [("m_cca_g", "larger is more alike"), ("kl", "smaller is more alike")])
def test_the_title_tells_the_direction(name: str, direction: str) -> None:
    figure = similarity_heatmap(matrix(3), names(3), names(3), MEASURES[name])
    assert direction in figure.axes[0].get_title()


def test_colours_span_what_the_measure_can_be() -> None:
    def scale(values: np.ndarray, name: str):
        return similarity_heatmap(values, names(3), names(3), MEASURES[name]).axes[0].images[0].norm

    assert (scale(matrix(3), "m_cca_f").vmin, scale(matrix(3), "m_cca_f").vmax) == (0, 1)
    few = matrix(3, 0.1, 0.4)
    assert (scale(few, "kl").vmin, scale(few, "kl").vmax) == (0, np.nanmax(few))
    assert isinstance(scale(10 ** matrix(3, -6, 1), "kl"), LogNorm)
    assert scale(np.full((3, 3), np.nan), "kl").vmax == 1
    assert scale(0 * matrix(3), "kl").vmax == 1


def scatter(models: int, num_classes: int = 10):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, 200)
    embeddings, unembeddings = rng.normal(size=(models, 200, 2)), rng.normal(size=(models, num_classes, 2))
    return embedding_scatter(list(embeddings), labels, list(unembeddings), names(models))


@pytest.mark.parametrize(("models", "panels"), [(1, 1), (5, 5), (8, 8), (11, 8)])
def test_at_most_eight_models_are_drawn_and_said_so(models: int, panels: int) -> None:
    figure = scatter(models)
    assert len(figure.axes) == panels
    assert ("the first 8 of 11 models" in figure.texts[0].get_text()) == (models > panels)


def test_every_class_has_its_colour_in_the_legend() -> None:
    legend = scatter(2, num_classes=18).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [str(label) for label in range(18)]
    looks = {(handle.get_color(), handle.get_marker()) for handle in legend.legend_handles}
    assert len(looks) == 18
    assert len(set(PALETTE)) == len(PALETTE)


@pytest.mark.parametrize("num_classes", [2, 10, 18])
def test_labels_of_arrows_that_point_alike_do_not_overlap(num_classes: int) -> None:
    arrows = np.tile([[1.0, 0.2]], (num_classes, 1)) + 1e-3 * np.random.default_rng(0).normal(size=(num_classes, 2))
    places = label_places(arrows, radius=1.2)
    distances = np.linalg.norm(places[:, None] - places, axis=-1) + 10 * np.eye(num_classes)
    assert distances.min() > 0.19


def test_a_figure_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "figures" / "embeddings.png"
    assert save_figure(scatter(2), path) == path
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.read_bytes().endswith(b"IEND\xaeB`\x82")
    assert list(path.parent.iterdir()) == [path]


def test_images_are_eight_bit_and_not_constant() -> None:
    image = as_image(similarity_heatmap(matrix(3), names(3), names(3), MEASURES["kl"]))
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    assert len(np.unique(image)) > 20
