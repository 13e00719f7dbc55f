"""Methods side by side: numbers against those of the functions, and what is said of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from likeness.hubness.analysis import analyse_hubness
from likeness.hubness.reductions import reduction
from likeness.neighbours.classification import choose_k, knn_score, mcnemar
from scripts.hubness.analysis import Search
from scripts.hubness.comparison import HubnessComparison, compare_methods, possible_folds
from scripts.hubness.comparison_tables import comparison_figure, error_table, file_table, hubness_table
from scripts.hubness.methods import build_method
from scripts.hubness.points import Points
from tests.scripts.hubness.hubness_files import embeddings, labels

METHODS = ["base", "csls:k=5", "f_norm+mutual_proximity"]


def points(n: int = 200) -> Points:
    return Points(torch.as_tensor(embeddings(n)), "points", labels(n))


@pytest.fixture(scope="module")
def comparison() -> HubnessComparison:
    return compare_methods(points(), None, METHODS, Search())


def test_indices_are_those_of_the_reranked_neighbours(comparison: HubnessComparison) -> None:
    assert [(of.method, of.metric) for of in comparison.outcomes] == [
        ("base", "euclidean"), ("f_norm+mutual_proximity", "euclidean"), ("base", "cosine"), ("csls:k=5", "cosine"),
    ]  # fmt: skip
    for outcome, options in zip(comparison.outcomes[1::2], [None, ("csls", {"k": 5})], strict=True):
        steps = ["f_norm", "mutual_proximity"] if options is None else [options]
        found = reduction(steps).fit(embeddings(200)).rerank(None, 10)
        expected = analyse_hubness(embeddings(200), neighbours=found, labels=labels(200))
        assert outcome.report.indices() == expected.indices()
        base = analyse_hubness(embeddings(200), metric=outcome.metric)  # type: ignore[arg-type]
        fallen = 100 * (base.k_skewness - expected.k_skewness) / base.k_skewness
        assert comparison.reductions(outcome)["k_skewness"] == pytest.approx(fallen)


def test_errors_and_tests(comparison: HubnessComparison) -> None:
    lists = [reduction("csls", k=5).fit(embeddings(200)).rerank(None, 60), build_method("base:metric=cosine")]
    lists[1] = lists[1].fit(embeddings(200)).rerank(None, 60)
    scores = [knn_score(found, labels(200), 10) for found in lists]
    choices = [choose_k(found, labels(200)) for found in lists]
    csls, base = comparison.outcomes[3], comparison.outcomes[2]
    assert csls.score is not None
    assert csls.choice is not None
    assert csls.score.error == scores[0].error
    assert csls.choice.best.k == choices[0].best.k
    tests = comparison.tests(csls)
    assert tests["error"] == mcnemar(scores[1].correct, scores[0].correct, 0.025)
    assert tests["chosen_error"] == mcnemar(choices[1].best.correct, choices[0].best.correct, 0.025)
    assert base.chosen is not None
    assert base.chosen.error == choices[1].best.error


def test_queries_are_classified_with_the_k_of_the_index() -> None:
    index, asked = Points(torch.as_tensor(embeddings(240)[:200]), "x", labels(240)[:200]), embeddings(240)[200:]
    queries = Points(torch.as_tensor(asked), "q", labels(240)[200:])
    outcome = compare_methods(index, queries, ["nicdm"], Search(k=4)).outcomes[1]
    method = reduction("nicdm").fit(index.vectors)
    k = choose_k(method.rerank(None, 60), index.labels).best.k
    expected = knn_score(method.rerank(asked, k), index.labels, k, query_labels=queries.labels)
    assert outcome.chosen is not None
    assert (outcome.chosen.k, outcome.chosen.error) == (k, expected.error)
    assert (outcome.report.m, outcome.report.n, outcome.report.k) == (40, 200, 4)


def test_without_labels_nothing_is_classified() -> None:
    bare = Points(torch.as_tensor(embeddings()), "points")
    comparison = compare_methods(bare, None, ["base", "csls"], Search())
    assert comparison.outcomes[0].score is None
    assert comparison.notes == ["no labels, so nothing is classified: name them with --labels"]
    assert len(comparison_figure(comparison).axes) == 2


def test_folds_follow_the_smallest_class() -> None:
    few = Points(torch.zeros(9, 2), "p", ["a"] * 6 + ["b"] * 3)
    assert possible_folds(few, 10) == (3, ["label 'b' has 3 points, so k is chosen in 3 folds and not in 10"])
    lonely = Points(torch.zeros(4, 2), "p", ["a"] * 3 + ["b"])
    assert possible_folds(lonely, 10) == (0, ["label 'b' has 1 point, so k is not chosen by cross-validation"])
    assert possible_folds(points(), 10) == (10, [])
    assert possible_folds(points(), 0) == (0, [])


@pytest.mark.parametrize("n", [8, 14, 25, 60])
def test_few_points_are_compared_too(n: int) -> None:
    few = Points(torch.as_tensor(embeddings(n)), "p", ["a", "b"] * (n // 2) + ["a"] * (n % 2))
    outcomes = compare_methods(few, None, ["base", "csls:k=2"], Search(k=3)).outcomes
    assert all(outcome.score is not None for outcome in outcomes)


@pytest.mark.parametrize("metric", [None, "euclidean", "cosine"])
def test_what_changes_nothing_under_a_metric_reduces_nothing(metric: Any) -> None:
    """Centring moves no Euclidean neighbour; under the cosine it is compared with the cosine's neighbours."""
    search = Search(methods_metric=metric)
    found = {of.method: of for of in compare_methods(points(), None, ["centring", "nnn:alpha=0.0"], search).outcomes}
    comparison = compare_methods(points(), None, ["centring", "nnn:alpha=0.0"], search)
    outcomes = {outcome.method: outcome for outcome in comparison.outcomes}
    assert found["nnn:alpha=0.0"].metric == "cosine"
    assert comparison.reductions(outcomes["nnn:alpha=0.0"])["k_skewness"] == 0
    assert comparison.tests(outcomes["nnn:alpha=0.0"])["error"].p == 1
    assert (comparison.reductions(outcomes["centring"])["k_skewness"] == 0) == (metric == "euclidean")


def test_the_tables_name_the_metric_of_every_row(comparison: HubnessComparison) -> None:
    metrics = [outcome.metric for outcome in comparison.outcomes]
    assert [row["metric"] for row in hubness_table(comparison).rows] == ["", *metrics]
    errors = error_table(comparison)
    assert [row["metric"] for row in errors.rows] == metrics
    assert "verdict at 0.025" in errors.title
    assert [row["verdict"] is None for row in errors.rows] == [True, False, True, False]


def test_the_file_has_a_row_a_method(comparison: HubnessComparison, tmp_path: Path) -> None:
    lines = file_table(comparison).write(tmp_path / "c.csv").read_text().splitlines()
    assert len(lines) == 5
    header = lines[0].split(",")
    assert {"k_skewness", "k_skewness_null", "k_skewness_reduction", "error", "error_p", "chosen_error_verdict"} <= {
        *header
    }
    base = dict(zip(header, lines[1].split(","), strict=True))
    assert (base["error_p"], base["k_skewness_reduction"]) == ("", "0.0")


def test_the_figure_shows_the_numbers(comparison: HubnessComparison) -> None:
    skewness, robin_hood, error, chosen = comparison_figure(comparison).axes
    for axes, expected in (
        (skewness, [outcome.report.k_skewness for outcome in comparison.outcomes]),
        (robin_hood, [outcome.report.robin_hood for outcome in comparison.outcomes]),
        (error, [100 * outcome.score.error for outcome in comparison.outcomes if outcome.score]),
        (chosen, [100 * outcome.chosen.error for outcome in comparison.outcomes if outcome.chosen]),
    ):
        assert np.allclose(axes.lines[-1].get_xdata(), expected)


def test_metrics_go_to_the_steps_that_know_them() -> None:
    both = build_method("z_score+mutual_proximity:variant=rank", "cosine")
    assert both.last.metric == "cosine"  # type: ignore[attr-defined]
    assert build_method("csls", "euclidean").metric == "cosine"  # type: ignore[attr-defined]
    assert build_method("z_score").metric == "cosine"  # type: ignore[attr-defined]
    assert build_method("local_scaling:metric=euclidean", "cosine").metric == "euclidean"  # type: ignore[attr-defined]
