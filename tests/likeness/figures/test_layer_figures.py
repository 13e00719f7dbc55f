"""What the figures of layers show: which cells are marked, what is named, and the lines of the trend."""

import numpy as np
import pytest
import torch
from torch import nn

from likeness.figures.layers import LABELS, layer_figures, layer_heatmap, layer_trend, training_curves
from likeness.similarity.layers.answer import LayerComparison
from likeness.similarity.layers.compare import compare_layers


def compared(depth: int = 3, **options: int) -> LayerComparison:
    torch.manual_seed(0)
    a, b = (nn.Sequential(*(nn.Linear(6, 6) for _ in range(depth))) for _ in range(2))
    for layer in b[1:]:
        nn.init.zeros_(layer.weight)  # its later layers have nothing of the data
    return compare_layers(a, b, torch.randn(60, 6), measures=["unbiased_linear_cka", "procrustes"], **options)


@pytest.fixture(scope="module")
def found() -> LayerComparison:
    return compared(permutations=39, bootstrap=20)


def test_pairs_above_the_null_are_marked(found: LayerComparison) -> None:
    axes = layer_heatmap(found, "unbiased_linear_cka").axes[0]
    (dots,) = axes.collections
    marked = {(int(y), int(x)) for x, y in np.asarray(dots.get_offsets())}
    significant = found.nulls["unbiased_linear_cka"].significant
    assert marked == {(i, j) for i, j in significant.nonzero().tolist()}
    assert (0, 0) in marked
    assert not {(i, j) for i, j in marked if j}
    assert [text.get_text() for text in axes.get_yticklabels()] == ["0", "1", "2"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == found.names


def test_without_a_null_nothing_is_marked() -> None:
    assert not layer_heatmap(compared(), "procrustes").axes[0].collections


def test_the_trend_has_the_values_of_matched_layers(found: LayerComparison) -> None:
    figure = layer_trend(found)
    assert len(figure.axes) == 2
    values = [line.get_ydata() for line in figure.axes[0].get_lines()]
    threshold, own = values
    assert set(np.asarray(threshold)) == {found.nulls["unbiased_linear_cka"].threshold}
    np.testing.assert_array_equal(own, list(found.diagonal("unbiased_linear_cka").values()))
    assert [name for name, _ in layer_figures(found)] == [
        "layers_unbiased_linear_cka",
        "layers_procrustes",
        "layers_trend",
    ]


def test_only_some_of_many_layers_are_named() -> None:
    axes = layer_heatmap(compared(depth=LABELS + 5), "unbiased_linear_cka").axes[0]
    assert len(axes.get_yticklabels()) <= LABELS


def test_curves_are_of_all_layers_and_the_legend_of_some() -> None:
    steps, values = [10, 20, 30], {f"layer {i}": [0.1 * i, 0.5, 0.6] for i in range(14)}
    figure = training_curves(steps, values, "CKA", "initialisation", 1.0)
    (axes,) = figure.axes
    assert len(axes.get_lines()) == 14
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 10
