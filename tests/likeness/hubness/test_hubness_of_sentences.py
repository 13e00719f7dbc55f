"""Hubness of sentence embeddings against published numbers."""

import numpy as np
import pytest
import torch

from likeness.hubness.analysis import analyse_hubness, hubness_of_neighbours
from likeness.neighbours.exact import Neighbours, nearest_neighbours
from tests.reference import FOLDER

AG_NEWS = FOLDER / "agnews_minilm.npz"
needs_ag_news = pytest.mark.skipif(not AG_NEWS.exists(), reason=f"no {AG_NEWS}")


@pytest.fixture(scope="module")
def news() -> tuple[torch.Tensor, torch.Tensor]:
    with np.load(AG_NEWS) as arrays:
        return torch.from_numpy(arrays["embeddings"]), torch.from_numpy(arrays["labels"])


@pytest.fixture(scope="module")
def hundred(news: tuple[torch.Tensor, torch.Tensor]) -> Neighbours:
    """100 neighbours of every text by the cosine."""
    return nearest_neighbours(news[0], 100, metric="cosine")


@needs_ag_news
def test_sentences(news: tuple[torch.Tensor, torch.Tensor], hundred: Neighbours) -> None:
    report = analyse_hubness(news[0], labels=news[1], neighbours=hundred)
    expected = {
        "k_skewness": 1.456,
        "robin_hood": 0.2772,
        "antihub_rate": 0.0170,
        "hub_rate": 0.1007,
        "max_occurrence": 60,
        "asymmetry": 0.469,
        "bad_occurrence": 0.1767,
    }
    found = report.indices()
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=5e-4)
    assert report.null.k_skewness == pytest.approx(0.316, abs=5e-4)
    assert report.null.robin_hood == pytest.approx(0.125, abs=5e-4)
    assert report.warnings == ("3 dimensions of embeddings are constant: 127, 223, 319",)


@needs_ag_news
def test_sentences_that_count_themselves(news: tuple[torch.Tensor, torch.Tensor]) -> None:
    report = analyse_hubness(news[0], metric="cosine", include_self=True)
    assert report.k_skewness == pytest.approx(1.441, abs=5e-4)
    assert report.robin_hood == pytest.approx(0.2521, abs=5e-5)


@needs_ag_news
@pytest.mark.parametrize(("k", "skewness"), [(1, 1.51), (5, 1.46), (10, 1.46), (20, 1.37), (50, 1.18), (100, 1.08)])
def test_sentences_by_the_number_of_neighbours(hundred: Neighbours, k: int, skewness: float) -> None:
    report = hubness_of_neighbours(hundred.ids[:, :k], 7600, query_ids=torch.arange(7600))
    assert report.k_skewness == pytest.approx(skewness, abs=0.00501)


@needs_ag_news
@pytest.mark.parametrize(
    ("texts", "queries", "skewness", "robin_hood", "null_skewness", "null_robin_hood"),
    [(6600, 1000, 1.528, 0.410, 0.811, 0.333), (7000, 600, 1.733, 0.481, 1.078, 0.424)],
)
def test_sentences_as_queries_of_others(
    news: tuple[torch.Tensor, torch.Tensor],
    texts: int,
    queries: int,
    skewness: float,
    robin_hood: float,
    null_skewness: float,
    null_robin_hood: float,
) -> None:
    """The published split is a random one that is not known; splits differ by as much as is allowed here."""
    order = torch.randperm(7600, generator=torch.Generator().manual_seed(0))
    x = news[0][order]
    report = analyse_hubness(x[:texts], metric="cosine", queries=x[texts:])
    assert report.m == queries
    assert report.k_skewness == pytest.approx(skewness, abs=0.15)
    assert report.robin_hood == pytest.approx(robin_hood, abs=0.02)
    assert report.null.k_skewness == pytest.approx(null_skewness, abs=1e-3)
    assert report.null.robin_hood == pytest.approx(null_robin_hood, abs=1e-3)


@needs_ag_news
def test_hubness_of_sentences_grows_with_their_number(news: tuple[torch.Tensor, torch.Tensor]) -> None:
    """The published means are of five random subsamples each."""
    generator = torch.Generator().manual_seed(0)
    for n, published in {250: 0.84, 500: 0.88, 1000: 1.13, 2000: 1.16}.items():
        orders = [torch.randperm(7600, generator=generator)[:n] for _ in range(15)]
        found = [analyse_hubness(news[0][order], metric="cosine").k_skewness for order in orders]
        assert np.mean(found) == pytest.approx(published, abs=3 * np.std(found) / 5**0.5), n
