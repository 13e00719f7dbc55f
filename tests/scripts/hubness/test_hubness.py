"""The hubness command: what it reads, prints and writes, and how it refuses."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from likeness.hubness.analysis import analyse_hubness
from likeness.neighbours.classification import knn_score
from likeness.neighbours.exact import nearest_neighbours
from scripts import hubness
from scripts.cli.entry_point import run_command
from scripts.hubness.encoders import tfidf_embeddings
from tests.scripts.hubness.hubness_files import FILES, embeddings, labels, texts, write_npy, write_table


def run(*arguments: Any, out: Path) -> None:
    hubness.main([*map(str, arguments), "--out", str(out), "--device", "cpu"])


def refusal(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    with pytest.raises(SystemExit) as ended:
        run_command(hubness.main, [*map(str, arguments), "--device", "cpu"])
    assert ended.value.code in (1, 2)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error.removeprefix("likeness: error: ").strip()


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def points(tmp_path: Path) -> Path:
    np.savez(tmp_path / "p.npz", embeddings=embeddings(), labels=np.array(labels()), texts=np.array(texts()))
    return tmp_path / "p.npz"


@pytest.mark.parametrize("name", FILES)
def test_analyse_answers_what_the_function_does_on_every_format(name: str, tmp_path: Path) -> None:
    path = FILES[name](tmp_path / name, embeddings())
    key = ["--key", "vectors"] if name.endswith("npz") else []
    run("analyse", path, *key, "--k", 5, "--metric", "cosine", out=tmp_path / "out")
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    expected = analyse_hubness(
        embeddings(), 5, "cosine", labels=labels() if name.endswith(("npz", "parquet")) else None
    )
    assert found["indices"] == expected.indices()
    assert found["null"] == expected.null.indices()
    assert (found["n"], found["m"], found["k"], found["d"], found["metric"]) == (90, 90, 5, 12, "cosine")
    counts = np.load(tmp_path / "out" / "k_occurrence.npy")
    assert (counts == expected.k_occurrence.numpy()).all()


def test_the_tables_of_an_analysis(points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("analyse", points, "--top", 4, out=tmp_path / "out")
    printed = capsys.readouterr().out
    expected = analyse_hubness(embeddings(), labels=labels())
    for part in ("k-skewness", "by chance", f"{expected.robin_hood:.4f}", "largest hubs"):
        assert part in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "indices.csv", "hubs.csv", "report.json", "k_occurrence.npy", "k_occurrence.png", "k_occurrence.pdf",
    }  # fmt: skip
    rows = {row["index"]: row for row in table(tmp_path / "out" / "indices.csv")}
    null = expected.null.indices()
    assert {name: float(row["value"]) for name, row in rows.items()} == expected.indices()
    assert float(rows["k_skewness"]["excess"]) == expected.excess_skewness
    assert float(rows["robin_hood"]["ratio"]) == expected.robin_hood_ratio
    assert {name: float(row["null"]) for name, row in rows.items()} == null
    assert {row["recall"] for row in rows.values()} == {"1.0"}


def test_hubs_come_with_labels_texts_and_what_they_are_wrong_about(points: Path, tmp_path: Path) -> None:
    run("analyse", points, "--top", 3, out=tmp_path / "out")
    ids = nearest_neighbours(torch.as_tensor(embeddings()), 10).ids.numpy()
    counts = np.bincount(ids.flatten(), minlength=90)
    for row in table(tmp_path / "out" / "hubs.csv"):
        hub = int(row["row"])
        assert int(row["N"]) == counts[hub]
        asked_by = [query for query in range(90) if hub in ids[query]]
        assert int(row["other label"]) == sum(labels()[query] != labels()[hub] for query in asked_by)
        assert (row["label"], row["text"]) == (labels()[hub], texts()[hub])
    assert [int(row["N"]) for row in table(tmp_path / "out" / "hubs.csv")] == sorted(counts)[::-1][:3]


def test_queries_of_their_own(points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked, of = embeddings(40)[:25], labels(40)[:25]
    np.savez(tmp_path / "q.npz", embeddings=asked, labels=np.array(of))
    run("analyse", points, "--queries", tmp_path / "q.npz", "--k", 4, out=tmp_path / "out")
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    expected = analyse_hubness(embeddings(), 4, queries=asked, labels=labels(), query_labels=of)
    assert found["indices"] == expected.indices()
    assert "asymmetry" not in found["indices"]
    assert found["in_sample"] is False
    assert "25 queries of" in capsys.readouterr().out


def test_each_point_its_own_neighbour(points: Path, tmp_path: Path) -> None:
    run("analyse", points, "--include_self", out=tmp_path / "out")
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["indices"] == analyse_hubness(embeddings(), labels=labels(), include_self=True).indices()


def test_thinned_queries(points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("analyse", points, "--query_fraction", 0.5, "--seed", 3, out=tmp_path / "out")
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    expected = analyse_hubness(embeddings(), labels=labels(), query_fraction=0.5, seed=3)
    assert expected.thinned is not None
    assert found["thinned"] == expected.thinned._asdict()
    skewness = expected.thinned.k_skewness
    said = "no estimate" if skewness is None else f"estimated: {skewness:.3f}"
    assert said in " ".join(capsys.readouterr().out.split())


def test_approximate_neighbours_are_printed_with_their_recall(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("faiss")
    path = write_npy(tmp_path / "x.npy", embeddings(400))
    run("analyse", path, "--approximate", out=tmp_path / "out")
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert 0.9 < found["recall"] <= 1
    if found["recall"] < 1:
        assert f"recall {found['recall']:.4f}" in " ".join(capsys.readouterr().out.split())
    assert {float(row["recall"]) for row in table(tmp_path / "out" / "indices.csv")} == {found["recall"]}


def test_searching_in_blocks_changes_nothing(points: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.hubness.analysis.QUERIES", 7)
    run("analyse", points, out=tmp_path / "out")
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["indices"] == analyse_hubness(embeddings(), labels=labels()).indices()


def test_texts_are_embedded(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", {"text": texts(), "label": labels()})
    run("analyse", path, "--dim", 8, out=tmp_path / "out")
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["indices"] == analyse_hubness(tfidf_embeddings(texts(), 8), labels=labels()).indices()


def test_what_can_go_on_goes_on_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = embeddings()
    x[7] = x[3]
    x[9] = x[3]
    x[:, 5] = 2
    x[20] = 0
    run("analyse", write_npy(tmp_path / "x.npy", x), out=tmp_path / "out")
    printed = " ".join(capsys.readouterr().out.split())
    assert "2 rows of embeddings repeat an earlier one: 7, 9" in printed
    assert "1 rows of embeddings are zero: 20" in printed
    warnings = json.loads((tmp_path / "out" / "report.json").read_text())["warnings"]
    assert len(warnings) == 2


def test_empty_texts_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = texts()
    lines[4] = lines[11] = "  "
    (tmp_path / "t.txt").write_text("\n".join(lines) + "\n")
    run("analyse", tmp_path / "t.txt", "--dim", 5, out=tmp_path / "out")
    assert "2 texts are empty, rows 4, 11" in " ".join(capsys.readouterr().out.split())


def test_wrong_input_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = embeddings()
    bad, zero = x.copy(), x.copy()
    bad[3, 1], zero[8] = np.inf, 0
    arrays = {"x": x, "bad": bad, "zero": zero}
    files = {name: write_npy(tmp_path / f"{name}.npy", array) for name, array in arrays.items()}
    wide = write_npy(tmp_path / "wide.npy", embeddings(30, 20))
    (tmp_path / "nine.txt").write_text("a\n" * 9)
    assert f"1 rows of {files['bad']} are not finite; row 4 has inf in dimension 2" in refusal(
        capsys, "analyse", files["bad"]
    )
    assert f"{files['zero']} are zero and have no cosine: 8" in refusal(
        capsys, "analyse", files["zero"], "--metric", "cosine"
    )
    assert "below the 90 points" in refusal(capsys, "analyse", files["x"], "--k", 90)
    assert "20 dimensions, but those of" in refusal(capsys, "analyse", files["x"], "--queries", wide)
    assert "9 labels" in refusal(capsys, "analyse", files["x"], "--labels", tmp_path / "nine.txt")
    assert "nothing to embed" in refusal(capsys, "analyse", files["x"], "--encoder", "tfidf")
    assert "no encoder ./nowhere" in refusal(capsys, "analyse", tmp_path / "nine.txt", "--encoder", "./nowhere")
    assert "none.npy is missing" in refusal(capsys, "analyse", tmp_path / "none.npy")
    assert "--query_key" in refusal(capsys, "analyse", files["x"], "--query_key", "a")
    assert "--top must be at least 1" in refusal(capsys, "analyse", files["x"], "--top", 0)
    assert "--approximate" in refusal(capsys, "analyse", files["x"], "--approximate", "--query_fraction", 0.5)
    assert "'analyse', 'reduce', 'compare'" in refusal(capsys, "analyze", files["x"])


def test_wrong_methods_end_with_one_line(points: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no method 'foo'" in refusal(capsys, "reduce", points, "--method", "foo")
    assert "csls has no option" in refusal(capsys, "reduce", points, "--method", "csls:q=3")
    assert "'k' is no option" in refusal(capsys, "reduce", points, "--method", "csls:k")
    assert "variant" in refusal(capsys, "reduce", points, "--method", "mutual_proximity:variant=foo")
    assert "must transform features" in refusal(capsys, "reduce", points, "--method", "csls", "f_norm")
    assert "no step of" in refusal(capsys, "reduce", points, "--method", "base", "csls")
    assert "no augmented vectors" in refusal(capsys, "reduce", points, "--method", "mutual_proximity", "--augment")
    assert "names csls twice" in refusal(capsys, "compare", points, "--methods", "base", "csls", "csls")


def test_a_comparison_warns_and_names_what_it_cannot_measure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = embeddings()
    x[7], x[8] = x[3], 0
    path = write_npy(tmp_path / "x.npy", x)
    run("compare", path, "--methods", "base", "mutual_proximity", out=tmp_path / "out")
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 rows of embeddings repeat an earlier one: 7" in printed
    error = refusal(capsys, "compare", path, "--methods", "base", "csls")
    assert error.startswith(f"base cannot be measured on {path}: 1 rows of ")
    assert error.endswith("are zero and have no cosine: 8")


def test_compare_by_the_command(points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("compare", points, "--methods", "base", "csls", "f_norm+mutual_proximity", out=tmp_path / "out")
    printed = " ".join(capsys.readouterr().out.split())
    assert "McNemar" in printed
    found = table(tmp_path / "out" / "comparison.csv")
    assert [(row["method"], row["metric"]) for row in found] == [
        ("base", "euclidean"), ("f_norm+mutual_proximity", "euclidean"), ("base", "cosine"), ("csls", "cosine"),
    ]  # fmt: skip
    rows = {row["method"]: row for row in found if row["metric"] == "euclidean"}
    base = analyse_hubness(embeddings(), labels=labels())
    assert float(rows["base"]["k_skewness"]) == base.k_skewness
    neighbours = nearest_neighbours(torch.as_tensor(embeddings()), 10)
    assert float(rows["base"]["error"]) == knn_score(neighbours, labels()).error
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 0


def test_the_test_split_alone_is_enough(tmp_path: Path) -> None:
    write_table(tmp_path / "test.csv", {"text": texts(), "label": labels()})
    files = f"{{train_file: {tmp_path}/train.csv, test_file: {tmp_path}/test.csv}}"
    (tmp_path / "d.yaml").write_text(f"data:\n  class_path: datamodules.Sentences\n  init_args: {files}\n")
    run("analyse", tmp_path / "d.yaml", "--k", 1, "--dim", 5, out=tmp_path / "out")
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (found["n"], found["k"]) == (90, 1)
