"""What figures show, where they go, and that a reader never sees half of one."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import LogNorm

from likeness.figures.output import as_image, save_figure
from likeness.figures.similarity import similarity_heatmap
from likeness.similarity.catalogue import MEASURES


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


def test_a_figure_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "figures" / "similarity_kl.png"
    assert save_figure(similarity_heatmap(matrix(2), names(2), names(2), MEASURES["kl"]), path) == path
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.read_bytes().endswith(b"IEND\xaeB`\x82")
    assert list(path.parent.iterdir()) == [path]


def test_images_are_eight_bit_and_not_constant() -> None:
    image = as_image(similarity_heatmap(matrix(3), names(3), names(3), MEASURES["kl"]))
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    assert len(np.unique(image)) > 20
