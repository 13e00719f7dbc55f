"""The hubness command on two points, one dimension, label or query, and k = n - 1: it works, or a line says why not."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from scripts import hubness
from scripts.cli.entry_point import run_command
from tests.scripts.hubness.hubness_files import arrays

SHAPES = {"two": (2, 3), "line": (6, 1), "six": (6, 3), "one": (1, 3), "query": (1, 3)}
LABELS = {"line": "aaaaaa", "six": "ababab"}


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file for each shape, and texts."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        labels = np.array([*LABELS.get(name, "a" * shape[0])])
        np.savez(f"{name}.npz", embeddings=rng.normal(size=shape).astype(np.float32), labels=labels)
    Path("one.txt").write_text("hello world\n")
    Path("three.txt").write_text("hello world\nhello there\nworld here\n")


def run(command: str) -> None:
    hubness.main([*command.split(), "--out", "out", "--device", "cpu"])


def refusal(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        run_command(hubness.main, [*command.split(), "--out", "out", "--device", "cpu"])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error.strip()


@pytest.mark.parametrize(
    ("command", "n"),
    [
        ("two.npz --k 1", 2),
        ("line.npz --k 5 --metric cosine", 6),
        ("six.npz --k 5 --top 1", 6),
        ("six.npz --k 5 --query_fraction 0.5", 6),
        ("three.txt --k 2 --dim 1", 3),
    ],
)
def test_all_others_are_neighbours_of_each(command: str, n: int) -> None:
    run(f"analyse {command}")
    report = json.loads(Path("out", "report.json").read_text())
    assert (report["n"], report["k"]) == (n, n - 1)
    if report["m"] == n:
        assert np.load("out/k_occurrence.npy").tolist() == [n - 1] * n
        assert report["indices"]["k_skewness"] == report["indices"]["robin_hood"] == 0


@pytest.mark.parametrize(("index", "n", "k"), [("two", 2, 1), ("six", 6, 5)])
def test_one_query(index: str, n: int, k: int) -> None:
    run(f"analyse {index}.npz --queries query.npz --k {k}")
    report = json.loads(Path("out", "report.json").read_text())
    points, query = (arrays(f"{name}.npz")["embeddings"].astype(float) for name in (index, "query"))
    nearest = np.linalg.norm(points - query, axis=1).argsort()[:k]
    assert np.load("out/k_occurrence.npy").nonzero()[0].tolist() == sorted(nearest.tolist())
    assert (report["m"], report["indices"]["robin_hood"]) == (1, pytest.approx(1 - k / n))


@pytest.mark.parametrize(
    "options",
    [
        "two.npz --k 1 --method csls:k=1",
        "line.npz --k 5 --method nicdm:k=5",
        "line.npz --k 5 --method csls:k=5 --metric dot",
        "six.npz --k 5 --method f_norm --queries query.npz",
        "six.npz --k 5 --method inverted_softmax --bank query.npz",
    ],
)
def test_reductions(options: str) -> None:
    run(f"reduce {options}")
    found = arrays("out/neighbours.npz")
    n, k = (2, 1) if "two" in options else (6, 5)
    own = [] if "--queries" in options else range(n)
    assert found["ids"].shape == (1 if "--queries" in options else n, k)
    assert all(sorted(found["ids"][i]) == [j for j in range(n) if j != i] for i in own)
    assert np.isfinite(found["distances"]).all()


@pytest.mark.parametrize(
    ("options", "errors", "chosen"),
    [
        ("two.npz --k 1 --methods base nicdm:k=1", 0.0, ""),  # too few for k = 2 in any folds
        ("two.npz --k 1 --queries query.npz --methods base", 0.0, ""),
        ("line.npz --k 5 --methods base nicdm:k=5", 0.0, "2"),
        ("line.npz --k 5 --folds 2 --methods base", 0.0, "2"),
        ("six.npz --k 5 --folds 0 --methods base nicdm:k=5", 1.0, ""),
        ("six.npz --k 3 --folds 0 --queries query.npz --methods base mutual_proximity:candidates=3", None, ""),
        ("six.npz --k 3 --folds 2 --queries query.npz --methods base mutual_proximity:candidates=4", None, "2"),
    ],
)
def test_comparisons(options: str, errors: float | None, chosen: str) -> None:
    """All others vote: of one label rightly, of an even split wrongly."""
    run(f"compare {options}")
    with Path("out", "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert {row.get("chosen_k", "") for row in rows} == {chosen}
    if errors is not None:
        assert {float(row["error"]) for row in rows} == {errors}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("analyse one.npz --k 1", "--k must be at least 1 and below the 1 points of one.npz, got 1"),
        ("analyse two.npz", "--k must be at least 1 and below the 2 points of two.npz, got 10"),
        ("analyse one.txt --k 1", "TF-IDF takes at least 2 texts and 2 terms, got 1 and 2"),
        (
            "analyse six.npz --k 5 --query_fraction 0.2",
            "query_fraction must leave at least 3 queries, but 0.2 of 6 are 1",
        ),
        (
            "reduce line.npz --k 5 --method row_centring",
            "row_centring takes points of at least two dimensions, but the index is [6, 1]",
        ),
        (
            "reduce two.npz --k 1 --method csls",
            "k must be from 1 to 1, but it is 10: the index has 2 points, of which each has the others",
        ),
        ("compare six.npz --k 5 --folds 1", "--folds must be 0 or at least 2, got 1"),
        ("compare six.npz --k 5 --folds -1", "--folds must be 0 or at least 2, got -1"),
        (
            "compare six.npz --k 5 --methods base mutual_proximity:candidates=4",
            "mutual_proximity:candidates=4 cannot be measured on six.npz: k is 5, but mutual_proximity re-ranks 4 "
            "candidates only",
        ),
    ],
)
def test_refusals(command: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(command, capsys) == f"likeness: error: {message}"
