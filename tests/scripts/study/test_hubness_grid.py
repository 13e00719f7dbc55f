"""The hubness grid through its command: what it trains, measures, keeps, skips and refuses."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules import DocstringPairs
from datamodules.splits import SplitName
from scripts import study
from scripts.cli.entry_point import run_command
from scripts.hubness.encoders import Embed, text_encoder
from scripts.hubness.methods import METHODS
from scripts.reporting import Row
from scripts.study import hubness_grid, hubness_grid_data
from scripts.study import hubness_grid_data as hubness_grid_encoders
from scripts.study.hubness_grid import DEFAULT, PAPER, Setting
from scripts.study.hubness_grid_data import Corpus, Encoder, Family, Training
from tests.scripts.study.labelled_points import points_file

CONFIG = """
model:
  class_path: lightning_modules.SentenceEncoder
  init_args:
    encoder:
      class_path: likeness.networks.SmallTransformer
      init_args: {width: 16, depth: 1, heads: 2, vocab_size: 400, max_length: 16}
    optimizer: {class_path: lightning_modules.optimization.SentenceAdamW, init_args: {lr: 0.003}}
    scheduler: {class_path: lightning_modules.optimization.WarmupThenDecay, init_args: {steps: 2}}
data:
  class_path: tests.lightning_modules.tiny_sentences.TinyPairs
  init_args: {batch_size: 8}
trainer: {max_steps: 2}
"""
ANIMALS, TOOLS = ("cat", "dog", "horse", "parrot"), ("hammer", "saw", "drill", "pliers")
METHOD_OPTIONS = ("--methods", "f_norm", "mutual_proximity")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _a_family_that_trains_fast(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG)
    monkeypatch.setitem(hubness_grid_encoders.FAMILIES, "small", Family(config))


def text_data() -> Path:
    """A data config over 160 texts of two classes, and 24 to be classified."""
    for name, seed, size in (("train", 0, 160), ("test", 1, 24)):
        random = np.random.default_rng(seed)
        with Path(f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for row in range(size):
                words = random.choice((ANIMALS, TOOLS)[row % 2], 3)
                writer.writerow(
                    [f"{words[0]} {words[1]} {1000 * (seed + 1) + row} and {words[2]}", ("animal", "tool")[row % 2]]
                )
    init_args = "{train_file: train.csv, test_file: test.csv, dataset_name: things}"
    Path("things.yaml").write_text(f"data:\n  class_path: datamodules.Sentences\n  init_args: {init_args}\n")
    return Path("things.yaml")


def rows(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        run_command(study.main, ["hubness_grid", "--out", "out", "--device", "cpu", *map(str, arguments)])
    return int(end.value.code or 0)


def test_the_grid_trains_measures_skips_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--data", text_data(), "ag_news", "--embeddings", points_file(Path("points.npz"), np.float32), "none.npy")
    grid = (*data, "--models", "tfidf", "./no_model", "--train", "small", "--heads", "z", "--seeds", 1, *METHOD_OPTIONS)
    assert run(*grid) == 0
    printed = capsys.readouterr().out
    cells = rows("out/cells.csv")
    runs = {(row["data"], row["model"], row["base"], row["head"], row["loss"], row["seed"]) for row in cells}
    trained = ("things.yaml", "small_z_cosine_seed0", "SmallTransformer", "z", "cosine", "0")
    assert runs == {
        trained,
        ("things.yaml", "tfidf", "tfidf", "", "", ""),
        ("points.npz", "as given", "as given", "", "", ""),
    }
    named = [(row["method"], row["metric"]) for row in cells]
    assert named == [(method, "euclidean") for method in ("base", "f_norm", "mutual_proximity")] * 3
    skipped = {row["skipped"]: row["reason"] for row in rows("out/skipped.csv")}
    assert {name.rpartition("/")[2] for name in skipped} == {"data ag_news", "no_model", "embeddings none.npy"}
    assert "train.csv is missing" in skipped["data ag_news"]
    for name in (*skipped, "points.npz, 192 index points, 48 queries", "comparisons with the base"):
        assert name in printed
    for name in ("reductions.png", "gains.png"):
        assert Path("out", name).stat().st_size > 10_000
    assert {row["method"] for row in rows("out/by_encoder.csv")} == {"f_norm", "mutual_proximity"}

    def forbidden(*arguments: object) -> Row:
        raise AssertionError("measured again")

    asked: list[str] = []

    def recorded(name: str, *arguments: Any) -> Embed:
        asked.append(name)
        return text_encoder(name, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(hubness_grid, "measure_cell", forbidden)
        patch.setattr(hubness_grid_data, "text_encoder", recorded)
        assert run(*grid) == 0
    assert asked == ["./no_model"]
    assert rows("out/cells.csv") == cells
    checkpoints = Path("out", "encoders", "small_z_cosine_seed0", "checkpoints")
    shutil.copy(checkpoints / "last.ckpt", checkpoints / "best.ckpt")  # as a training that selects leaves it
    assert run(*grid, "--k", 5) == 0
    assert {row["k"] for row in rows("out/cells.csv")} == {"5"}
    assert f"{trained[1]}/best" in {row["model"] for row in rows("out/cells.csv")}
    about = json.loads(Path("out/embeddings/things.yaml/small_z_cosine_seed0_best/source.json").read_text())
    assert about["encoder"].startswith(str(checkpoints / "best.ckpt"))


def test_embeddings_are_made_anew_for_other_texts(capsys: pytest.CaptureFixture[str]) -> None:
    grid = ("--data", text_data(), "--train", *METHOD_OPTIONS)
    assert run(*grid) == 0
    before = json.loads(Path("out/cells/things.yaml/tfidf/base.json").read_text())
    Path("test.csv").write_text("text,label\n" + "\n".join(f"{word} {word},animal" for word in ANIMALS))
    assert run(*grid) == 0
    after = json.loads(Path("out/cells/things.yaml/tfidf/base.json").read_text())
    assert before["settings"]["points"] != after["settings"]["points"]
    assert after["row"]["m"] == 4


def test_a_cell_that_cannot_be_is_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    points_file(Path("points.npz"))
    assert run("--data", "--train", "--embeddings", "points.npz", "--methods", "csls", "--weights", "distance") == 0
    (skipped,) = rows("out/skipped.csv")
    assert skipped["skipped"] == "points.npz, as given, csls"
    assert "need distances >= 0" in skipped["reason"]
    assert [row["method"] for row in rows("out/cells.csv")] == ["base", "base"]


def test_a_grid_in_which_nothing_ran_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--data", "ag_news", "--train", "mpnet") == 1
    error = capsys.readouterr().err
    assert "nothing of the grid could be measured: training 4 encoders mpnet: sts-train.csv is missing" in error
    assert "data ag_news: train.csv is missing" in error
    assert not Path("out", "cells.csv").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--methods", "hubs_away"), "there is no method 'hubs_away'"),
        (("--methods", "csls", "csls"), "methods must name each once, got csls csls"),
        (("--train", "big"), "train must be one of small, mpnet, distilroberta, minilm, but it is 'big'"),
        (("--heads", "zz"), "heads must be one of none, z"),
        (("--losses", "hinge"), "losses must be one of cosine, euclidean, ranking, but it is 'hinge'"),
        (("--seeds", "0"), "seeds must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(
    options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*options) == 1
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


def test_the_paper_has_all_variants_and_the_default_the_methods_of_the_command() -> None:
    assert len(PAPER.training.runs("mpnet")) == 5 * 2 * 3
    assert PAPER.all_methods[-1] == "f_norm+mutual_proximity:moments=graph,stored=121"
    assert DEFAULT.all_methods == METHODS
    assert {run.settings()["encoder"] for run in PAPER.training.runs("minilm")} == {"microsoft/MiniLM-L12-H384-uncased"}
    assert Setting(training=Training(steps=7)).training.runs("mpnet")[0].steps == 7


def test_what_tables_say_of_an_encoder_that_was_not_trained_here() -> None:
    encoder = Encoder.of("sentence-transformers/all-MiniLM-L12-v2", "L12")
    assert encoder[1:] == ("L12", "all-MiniLM-L12-v2", None, None, None)


def test_data_of_one_file_name_are_told_apart() -> None:
    folders = [Path(name) for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
        points_file(folder / "points.npz")
    files = [str(folder / "points.npz") for folder in folders]
    assert run("--data", "--train", "--embeddings", *files, "--methods", "f_norm") == 0
    assert [row["data"] for row in rows("out/cells.csv")] == [files[0]] * 2 + [files[1]] * 2


def test_the_docstrings_that_are_classified_are_no_part_of_the_training_pairs() -> None:
    corpus, pairs = Corpus.of("docstrings"), DocstringPairs()
    own, held_out = ("\n".join(split.x) for split in (corpus.index, corpus.queries))
    parts: list[tuple[SplitName, str]] = [("train", own), ("test", held_out)]
    for split, place in parts:
        sentences = pairs.load(split).first
        assert len(sentences) >= 800
        assert all(sentence in place for sentence in sentences[:800])
