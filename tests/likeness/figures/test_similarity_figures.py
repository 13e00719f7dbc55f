"""Which embeddings are kept for the scatter plot, and what of them is drawn."""

import numpy as np
import pytest
import torch

from likeness.figures.embeddings import MAX_POINTS, planes_figure
from likeness.figures.similarity import EmbeddingSample, similarity_figures
from likeness.similarity.catalogue import select
from likeness.similarity.metric import PairwiseSimilarity


def measured(dims: list[int], samples: int = 60, dtype: torch.dtype = torch.float32):
    """A metric and a sample of models with these M, the last coordinate of a negative one being a head's bias."""
    torch.manual_seed(0)
    names = [f"run/{model}" for model in range(len(dims))]
    metric, sample = PairwiseSimilarity(select(["kl"]), [abs(dim) for dim in dims], names), EmbeddingSample()
    g = [torch.randn(4, abs(dim), dtype=dtype) for dim in dims]
    for ids in torch.arange(samples).split(25):
        f = [torch.randn(len(ids), abs(dim), dtype=dtype) for dim in dims]
        for embedding, dim in zip(f, dims, strict=True):
            embedding[:, -1] = 1 if dim < 0 else embedding[:, -1]
        metric.update(f, g, ids)
        sample.add(ids % 4, f)
    return metric, sample


@pytest.mark.parametrize(
    ("dims", "panels", "named"),
    [
        ([2, 2], [0, 1], []),
        ([3, 5], [0, 1], [0, 1]),
        ([-3, 2, -4], [0, 1, 2], [2]),  # -3: two coordinates and a bias
        ([1, 3, -2], [1], [1]),
        ([1, -2], None, []),
        ([1] * 8 + [2], None, []),
    ],
)
def test_models_with_a_plane_are_drawn(dims: list[int], panels: list[int] | None, named: list[int]) -> None:
    metric, sample = measured(dims)
    planes = sample.planes(metric)
    if planes is None:
        assert panels is None
        return
    figure = planes_figure(planes)
    assert [axes.get_title() for axes in figure.axes] == [f"run/{model}" for model in panels or ()]
    assert [axes.get_title() for axes in figure.axes if axes.get_xlabel()] == [f"run/{model}" for model in named]


def test_at_most_the_first_points_and_models_are_kept() -> None:
    metric, sample = measured([3] * 10, samples=MAX_POINTS + 100)
    planes = sample.planes(metric)
    assert planes is not None
    figure = planes_figure(planes)
    assert len(figure.axes) == 8
    assert "the first 8 of 10 models" in figure.texts[0].get_text()
    assert len(figure.axes[0].collections[0].get_offsets()) == MAX_POINTS


def test_half_precision_is_drawn() -> None:
    metric, sample = measured([2, 3], dtype=torch.bfloat16)
    planes = sample.planes(metric)
    assert planes is not None
    assert {panel.f.dtype for panel in planes.panels} == {np.dtype("float32"), np.dtype("float64")}


def test_an_empty_sample_draws_nothing() -> None:
    metric, _ = measured([2, 2])
    assert EmbeddingSample().planes(metric) is None


def test_drawing_leaves_random_numbers_as_they_are() -> None:
    metric, sample = measured([3, 3])
    values = metric.compute()
    before, before_numpy = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    assert [name for name, _ in similarity_figures(values, metric, sample)] == ["similarity_kl", "embeddings"]
    assert torch.equal(torch.get_rng_state(), before)
    assert str(np.random.get_state()) == str(before_numpy)  # noqa: NPY002
