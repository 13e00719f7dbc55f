"""Profiles and heat maps of encoders of a training's model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from callbacks.diffusion.encoder import EncoderDiagnostics
from likeness.diffusion import IdentityEncoder, ParameterFreeEncoder
from likeness.figures.diffusion import heat_maps
from tests.callbacks.diffusion.toy_diffusion import LEVELS, ToyDiffuser, ToyImages, fit, keep_figures, table

MAPS = {"encoder_change", "encoder_direction"}


def drawn(folder: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...] = (1, 3, 2), **options: Any) -> Any:
    figures = keep_figures(monkeypatch)
    callback = EncoderDiagnostics(num_samples=6, num_times=4, num_images=2)
    fit(folder, callback, model=ToyDiffuser(shape, **options), data=ToyImages(shape), max_epochs=1)
    return figures


@pytest.mark.parametrize(
    ("encoder", "maps", "panels"),
    [
        (None, MAPS | {"encoder_mean", "encoder_output"}, 4),
        (ParameterFreeEncoder(), MAPS | {"encoder_mean"}, 3),
        (IdentityEncoder(), set(), 1),
    ],
)
def test_only_what_an_encoder_does_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: Any, maps: set[str], panels: int
) -> None:
    figures = drawn(tmp_path, monkeypatch, encoder=encoder)
    assert figures.keys() == maps | {"encoder_profile"}
    assert len(figures["encoder_profile"].axes) == panels


def test_the_profile_is_a_table_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn(tmp_path, monkeypatch)
    rows = table(tmp_path, "encoder_profile")
    assert [float(row["t"]) for row in rows] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert all(float(row["residual"]) > 0 for row in rows)


def test_points_in_the_plane_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = drawn(tmp_path, monkeypatch, shape=(2,))
    assert figures.keys() == {"encoder_profile", "encoder_mean"}
    assert len(figures["encoder_mean"].axes) == 8
    points = figures["encoder_mean"].axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(points, 2 * (ToyImages((2,)).val.x.double() + 0.5) / LEVELS - 1, atol=0.02)


@pytest.mark.parametrize("shape", [(3, 3, 2), (2, 3, 2)])
def test_images_of_several_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    assert drawn(tmp_path, monkeypatch, shape=shape, class_conditional=True).keys() > MAPS


def test_data_that_are_neither_have_a_profile_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(tmp_path, monkeypatch, shape=(5,)).keys() == {"encoder_profile"}


def test_heat_maps_are_symmetric_about_white() -> None:
    """Each time has its own scale: its largest value of either sign is pure red or blue, and zero is white."""
    first, second = np.array([[[0.0, 1.0], [-2.0, 0.0]]]), np.array([[[0.0, 10.0], [0.0, 5.0]]])
    figure = heat_maps(np.zeros((1, 2, 2)), [first, second], [0.5, 1], "")
    tiles = figure.axes[0].images[0].get_array()
    height, width = tiles.shape[0], tiles.shape[1] // 3
    quarter, three = height // 4, height * 2 // 3

    def colour(column: int, row: int, place: int) -> list[float]:
        return tiles[(quarter, three)[row], column * width + (quarter, three)[place]].round(2).tolist()

    assert colour(1, 1, 0) == [0, 0, 1]  # -2, the largest of its time
    assert colour(1, 0, 1) == pytest.approx([1, 0.5, 0.5], abs=0.02)  # 1 of 2
    assert colour(2, 0, 1) == [1, 0, 0]  # 10
    assert colour(2, 0, 0) == pytest.approx([1, 1, 1], abs=0.01)
    labels = [label.get_text() for label in figure.axes[2].get_xticklabels()]
    assert labels == ["$-2$", "$2$"]


def test_wrong_times_are_named() -> None:
    with pytest.raises(ValueError, match=r"change_times must lie in \[0.1, 1\], got \[0.05, 1.0\]"):
        EncoderDiagnostics(change_times=(0.05, 1.0))
    with pytest.raises(ValueError, match=r"mean_times must lie in \[0, 1\], got \[1.5\]"):
        EncoderDiagnostics(mean_times=[1.5])
    with pytest.raises(ValueError, match="num_times must be at least 2, got 1"):
        EncoderDiagnostics(num_times=1)
