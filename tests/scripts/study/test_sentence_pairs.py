"""The study of scored pairs: correlations and hubness against scipy and a dense distance matrix, and its files."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import skew, spearmanr

from scripts import study
from scripts.study import sentence_pairs
from scripts.study.sentence_pairs import ScoredPairs, similarities, table

WORDS = ["river", "stone", "cloud", "maple", "tiger", "piano", "salt", "glass", "north", "ember"]


@pytest.fixture
def pairs() -> ScoredPairs:
    """30 points around a common mean, and 40 pairs of them."""
    random = np.random.default_rng(0)
    rows = torch.from_numpy(random.integers(0, 30, (2, 40)))
    x = torch.from_numpy(random.normal(size=(30, 20)) + 0.5)
    return ScoredPairs(x, rows[0], rows[1], torch.from_numpy(random.uniform(0, 5, 40)))


def test_without_a_reduction(pairs: ScoredPairs) -> None:
    similar, indices = similarities("base", pairs, "cosine", 5)
    distances = cdist(pairs.embeddings, pairs.embeddings, "cosine")
    apart = pairs.first != pairs.second
    np.testing.assert_allclose(similar[apart], -distances[pairs.first, pairs.second][apart], atol=1e-6)
    assert similar[~apart].tolist() == [np.inf]
    np.fill_diagonal(distances, np.inf)
    counts = np.bincount(distances.argsort(1)[:, :5].ravel(), minlength=30)
    assert indices["k_skewness"] == pytest.approx(skew(counts))
    (row,) = table({"base": similar}, pairs.score, 10, 0)
    assert row["spearman"] == pytest.approx(spearmanr(similar, pairs.score).statistic)


def test_a_reduction_is_compared_on_the_same_resampled_pairs(pairs: ScoredPairs) -> None:
    base, centred = (similarities(name, pairs, "cosine", 5)[0] for name in ("base", "centring"))
    moved = pairs.embeddings - pairs.embeddings.mean(0)
    expected = torch.cosine_similarity(moved[pairs.first], moved[pairs.second]) - 1
    apart = pairs.first != pairs.second
    torch.testing.assert_close(centred[apart], expected[apart], atol=1e-6, rtol=0)
    first, second, third = table({"base": base, "centring": centred, "again": base}, pairs.score, 200, 0)
    assert second["change"] == pytest.approx(second["spearman"] - first["spearman"])
    assert second["change_low"] < second["change"] < second["change_high"]
    assert third["change"] == third["change_low"] == third["change_high"] == 0
    assert 0.5 < first["se"] / ((1 - first["spearman"] ** 2) / 40**0.5) < 2


def write_data(folder: Path) -> Path:
    """60 pairs of texts that share more words the higher their score is, and the configuration of them."""
    random = np.random.default_rng(0)
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence1", "sentence2", "score"])
        for shared in random.integers(0, 6, 60).tolist():
            words = random.permutation(WORDS).tolist()
            writer.writerow([" ".join(words[:5]), " ".join(words[5 - shared : 10 - shared]), shared])
    config = folder / "pairs.yaml"
    arguments = "\n".join(f"    {part}_file: {folder}/pairs.csv" for part in ("train", "val", "test"))
    config.write_text(f"data:\n  class_path: datamodules.SentencePairs\n  init_args:\n{arguments}\n")
    return config


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["tfidf", "--data", str(write_data(tmp_path)), "--methods", "csls", "f_norm", "--resamples", "20"]
    assert study.main(["sentence_pairs", *options, "--k", "5", "--out", str(tmp_path / "out")]) == 0
    assert "on 60 pairs of" in capsys.readouterr().out
    with (tmp_path / "out" / "sentence_pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["base", "csls", "f_norm"]
    assert float(rows[1]["change_low"]) <= float(rows[1]["change"]) <= float(rows[1]["change_high"])
    assert float(rows[0]["spearman"]) > 0.8
    assert (tmp_path / "out" / "sentence_pairs.png").stat().st_size > 2_000


def test_data_without_scores_is_named() -> None:
    with pytest.raises(ValueError, match=r"digits.yaml has no pairs of sentences with scores"):
        sentence_pairs.embed("tfidf", Path("configs/data/digits.yaml"), "test", torch.device("cpu"))
