"""Samples of a training's model, as pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from callbacks.diffusion.samples import SampleFigures
from tests.callbacks.diffusion.toy_diffusion import LEVELS, ToyDiffuser, ToyImages, fit, keep_figures


def drawn(
    folder: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...] = (1, 3, 2), seed: int = 5, **options: Any
) -> Any:
    figures = keep_figures(monkeypatch)
    sizes = {"num_samples": 5, "num_steps": 6, "path_samples": 2, "path_length": 3}
    model = ToyDiffuser(shape, learning_rate=0, class_conditional=options.pop("class_conditional", False))
    model.seed = seed
    fit(folder, SampleFigures(**(sizes | options)), model=model, data=ToyImages(shape), max_epochs=1)
    return figures


def pixels(figure: Any) -> np.ndarray:
    return np.asarray(figure.axes[0].images[0].get_array())


@pytest.mark.parametrize(
    "options", [{}, {"clip_quantile": 0.9}, {"spacing": "gamma"}, {"class_conditional": True}], ids=str
)
def test_a_grid_of_images_and_their_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Any) -> None:
    figures = drawn(tmp_path, monkeypatch, **options)
    assert figures.keys() == {"samples", "sample_path"}
    values = {(2 * level + 1) / (2 * LEVELS) for level in range(LEVELS)}  # of x = 2 (k + 1/2) / levels - 1
    found = set(pixels(figures["samples"]).round(6).flatten().tolist())
    assert found <= {round(value, 6) for value in values} | {1.0}  # and white between them
    texts = [text.get_text() for text in figures["sample_path"].axes[0].texts]
    assert texts == [r"$\gamma = 1.0$", r"$\gamma = -2.0$", r"$\gamma = -5.0$", "sample", *["$z$", r"$\hat{x}$"] * 2]


def test_the_last_column_of_a_path_is_the_grid_s_first_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = drawn(tmp_path, monkeypatch, num_samples=2)
    grid, path = pixels(figures["samples"]), pixels(figures["sample_path"])
    height, width = grid.shape[0], grid.shape[1] // 2
    for row in range(2):
        last = path[2 * row * height : (2 * row + 1) * height, -width:]
        assert np.array_equal(last, grid[:, row * width : (row + 1) * width])


def test_noise_is_a_function_of_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, again, other = (pixels(drawn(tmp_path, monkeypatch, seed=seed)["samples"]) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_points_beside_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = drawn(tmp_path, monkeypatch, shape=(2,), num_samples=15)
    data, samples = (axes.collections[0].get_offsets() for axes in figures["samples"].axes)
    assert data.shape == samples.shape == (15, 2)
    levels = ToyImages((2,)).val.x[:15].double()
    np.testing.assert_allclose(data, 2 * (levels + 0.5) / LEVELS - 1)
    assert len(figures["sample_path"].axes) == 3


def test_data_that_are_neither_have_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not drawn(tmp_path, monkeypatch, shape=(5,))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        SampleFigures(num_steps=0)


def test_more_samples_than_labels_repeat_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = drawn(tmp_path, monkeypatch, num_samples=30, class_conditional=True)
    assert torch.from_numpy(pixels(figures["samples"])).isfinite().all()
