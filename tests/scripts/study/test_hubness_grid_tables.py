"""Tables of the hubness grid against sums that are done by hand."""

from typing import Any

import pytest

from scripts.reporting import Row
from scripts.study import hubness_grid_report as tables


def cell(method: str, skewness: float, correct: str, model: str = "a", **more: Any) -> Row:
    indices = {f"{part}_{name}": skewness / 10 for part in ("train", "test") for name in ("k_skewness", "robin_hood")}
    row: Row = {"data": "d", "model": model, "base": "b", "head": None, "loss": None, "seed": 0, "method": method}
    row["metric"] = "euclidean"
    row |= indices | {"test_k_skewness": skewness, "accuracy": correct.count("1") / len(correct), "correct": correct}
    return row | more


CELLS = [
    cell("base", 4.0, "1111100000"),
    cell("csls", 1.0, "1111111111"),
    cell("nicdm", 5.0, "1111100000"),
    cell("base", 2.0, "1" * 20, model="perfect"),
    cell("csls", 1.0, "1" * 12 + "0" * 8, model="perfect"),
    cell("csls", 1.0, "10", model="without a base"),
]


def test_cells_are_compared_with_their_base() -> None:
    base, csls, nicdm, _, worse = tables.compared(CELLS)
    assert (base["p"], base["error_reduction"], base["bin"]) == (None, 0, "> 3")
    assert csls["test_k_skewness_reduction"] == pytest.approx(75)
    assert csls["train_robin_hood_reduction"] == pytest.approx(75)
    assert csls["error_reduction"] == pytest.approx(100)
    assert (csls["base_only_right"], csls["only_right"], csls["p"]) == (0, 5, pytest.approx(2 / 2**5))
    assert csls["verdict"] == "too few to tell"
    assert nicdm["test_k_skewness_reduction"] == pytest.approx(-25)
    assert (worse["error_reduction"], worse["verdict"], worse["bin"]) == (None, "worse", "<= 2.5")
    assert worse["p"] == pytest.approx(2 / 2**8)
    assert not any("correct" in row for row in (base, worse))


def test_means_are_over_runs() -> None:
    compared = tables.compared(CELLS)
    csls, nicdm = tables.summary(compared, ("data",))
    assert (csls["method"], csls["runs"], csls["better"], csls["worse"]) == ("csls", 2, 0, 1)
    names = [f"test_k_skewness_reduction_{name}" for name in ("min", "mean", "max")]
    assert [csls[name] for name in names] == pytest.approx([50, 62.5, 75])
    assert csls["error_reduction_mean"] == pytest.approx(100)  # the other run's base makes no errors
    assert nicdm["runs"] == 1
    assert tables.printed_summary(csls)["k-skewness"] == "62 (50..75)"
    assert {row["bin"] for row in tables.summary(compared, ("bin",))} == {"> 3", "<= 2.5"}


def test_wins_are_counted_where_both_were_run() -> None:
    counts = {(row["quantity"], row["method"], row["other"]): row for row in tables.wins(tables.compared(CELLS))}
    assert len(counts) == 3 * 6
    counts = {tuple(name.removesuffix(" (euclidean)") for name in key): row for key, row in counts.items()}
    own = counts["error", "base", "csls"]
    assert (own["lower"], own["equal"], own["runs"]) == (1, 0, 2)
    own = counts["error", "base", "nicdm"]
    assert (own["lower"], own["equal"], own["runs"]) == (0, 1, 1)
    assert counts["test_k_skewness", "base", "csls"]["lower"] == 2
    matrix = tables.win_matrix(list(counts.values()), "error")
    assert matrix[1] == {"A \\ B": "2 csls (euclidean)", "1": "1", "2": "", "3": "0"}


def test_a_row_for_each_bin_that_has_runs() -> None:
    low, high = tables.verdicts(tables.compared(CELLS))
    assert list(low.values()) == ["<= 2.5", 1, 0, 0, 1, 1]
    assert list(high.values()) == ["> 3", 2, 0, 0, 0, 0]


def test_a_cell_is_compared_with_the_base_of_its_metric() -> None:
    cosine = {"metric": "cosine"}
    cells = [cell("base", 4.0, "11"), cell("base", 1.0, "11", **cosine), cell("csls", 1.0, "11", **cosine)]
    (csls,) = (row for row in tables.compared(cells) if row["method"] == "csls")
    assert csls["test_k_skewness_reduction"] == 0
    names = {row["method"] for row in tables.wins(tables.compared(cells))}
    assert names == {"base (euclidean)", "base (cosine)", "csls (cosine)"}
