"""Which models a scatter plot shows, in which plane, and that its classes can be told apart."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from likeness.figures.embeddings import embedding_scatter, label_places, principal_axes
from likeness.figures.style import PALETTE


def scatter(dims: list[int], num_classes: int = 10) -> Figure:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, 200)
    embeddings, unembeddings = ([rng.normal(size=(rows, dim)) for dim in dims] for rows in (200, num_classes))
    return embedding_scatter(embeddings, labels, unembeddings, [f"run/{model}" for model in range(len(dims))])


@pytest.mark.parametrize(("models", "panels"), [(1, 1), (5, 5), (8, 8), (11, 8)])
def test_at_most_eight_models_are_drawn_and_said_so(models: int, panels: int) -> None:
    figure = scatter(models * [2])
    assert len(figure.axes) == panels
    assert ("the first 8 of 11 models" in figure.texts[0].get_text()) == (models > panels)


def test_every_class_has_its_colour_in_the_legend() -> None:
    legend = scatter([2, 3], num_classes=18).legends[0]
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


@pytest.mark.parametrize("dim", [2, 3, 5, 40])
def test_principal_axes_are_those_of_scikit_learn(dim: int) -> None:
    rng = np.random.default_rng(dim)
    f = rng.normal(size=(30, dim)) @ rng.normal(size=(dim, dim)) + 100
    directions, shares = principal_axes(f.astype(np.float32))
    expected = PCA(2, svd_solver="full").fit(f)
    np.testing.assert_allclose(directions, expected.components_.T, atol=1e-4)
    np.testing.assert_allclose(shares, expected.explained_variance_ratio_, rtol=1e-4)


def test_two_dimensions_are_drawn_as_they_are() -> None:
    f = np.random.default_rng(0).normal(size=(20, 2))
    (axes,) = embedding_scatter([f], np.zeros(20, dtype=int), [np.eye(2)], ["run"]).axes
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), f)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("", "")


def test_more_dimensions_are_seen_along_the_axes_of_most_variance() -> None:
    """The plane is that of the embeddings, and the label vectors are seen in it too: g(0) stands upright on it."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(400, 3))
    f = np.linalg.qr(noise - noise.mean(0)).Q * [0.01, 1, 3]  # uncorrelated coordinates
    labels = rng.integers(0, 2, 400)
    g = np.array([[5.0, 0, 0], [0, 1, 0], [0, 0, 2]])
    (axes,) = embedding_scatter([f], labels, [g], ["run"]).axes
    assert axes.get_xlabel() == "1st axis: 90 % of variance"
    assert axes.get_ylabel() == "2nd axis: 10 % of variance"
    np.testing.assert_allclose(axes.collections[0].get_offsets(), f[:, [2, 1]], atol=1e-12)
    colours = axes.collections[0].get_facecolors()[:, :3]
    np.testing.assert_allclose(colours, np.array([to_rgb(PALETTE[label]) for label in labels]))
    tips = np.array([arrow.xy for arrow in axes.texts if arrow.get_text() == ""])
    expected = np.array([[0, 0], [0, 1], [2, 0]]) - [2 / 3, 1 / 3]
    np.testing.assert_allclose(tips / np.linalg.norm(tips), expected / np.linalg.norm(expected), atol=1e-12)


def test_only_planes_that_were_chosen_are_named() -> None:
    plane, space = scatter([2, 5]).axes
    assert plane.get_xlabel() == ""
    assert "of variance" in space.get_xlabel()


def test_points_of_a_model_without_label_vectors_have_their_classes() -> None:
    """As diffusion models are: f, and two vectors of zeros in place of g."""
    labels = np.arange(10)
    figure = embedding_scatter([np.random.default_rng(0).normal(size=(10, 2))], labels, [np.zeros((2, 2))], ["run"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [str(label) for label in labels]
    assert list(figure.axes[0].texts) == []


def test_collapsed_embeddings_are_drawn_too() -> None:
    (axes,) = embedding_scatter([np.ones((5, 3))], np.zeros(5, dtype=int), [np.ones((2, 3))], ["run"]).axes
    assert axes.get_xlabel() == "1st axis: 0 % of variance"
