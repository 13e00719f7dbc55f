"""Two language models by the command: what it prints, what it writes, and how it refuses."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules import LanguageModel
from scripts import compare
from scripts.cli.entry_point import run_command
from tests.callbacks.toy_siblings import save_checkpoint
from tests.likeness.comparisons.toy_language_models import TEXTS, TOKENS, network, tokenizer

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models in folders, and texts."""
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("one", "two")):
        network(seed).save_pretrained(root / name)
        for file, content in tokenizer().files().items():
            (root / name / file).write_text(content)
    (root / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    return root


@pytest.fixture(autouse=True)
def _there(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folders)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        run_command(compare.main, [*arguments, "--device", "cpu"])
    return int(end.value.code or 0)


def test_the_table_and_the_files_say_what_each_number_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("hf:one", "two", "--texts", "texts.txt", "--budget", "2", "--lens", "--out", str(tmp_path)) == 0
    printed = capsys.readouterr().out
    for said in (
        "one (1) and two (2): ",
        "of texts.txt, each text after '<|endoftext|>'",
        "found, in [",
        "by documents",
    ):
        assert said in printed.replace("\n", " "), said
    report: dict[str, Any] = json.loads((tmp_path / "comparison.json").read_text())
    with (tmp_path / "comparison.csv").open() as file:
        rows = {row["quantity"]: row for row in csv.DictReader(file)}
    assert float(rows["kl_12"]["value"]) == report["kl_12"]
    assert float(rows["kl_12"]["error"]) == report["errors"]["kl_12"]
    assert (rows["term_1"]["kind"], rows["nll_1"]["unit"], report["labels"]) == ("found", "nats a token", TOKENS)
    with (tmp_path / "lens.csv").open() as file:
        lens = [(row["model"], row["blocks"], float(row["kl"])) for row in csv.DictReader(file)]
    assert [row[:2] for row in lens] == [(name, str(blocks)) for name in ("one", "two") for blocks in range(3)]
    assert [kl == 0 for *_, kl in lens] == [False, False, True] * 2
    assert (tmp_path / "comparison.png").stat().st_size > 2_000


def test_a_run_of_this_project_reads_texts_by_its_own_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = tmp_path / "run"
    (run_folder / "checkpoints").mkdir(parents=True)
    torch.manual_seed(0)
    model = LanguageModel(TOKENS, 32)
    model.tokenizer = tokenizer()
    save_checkpoint(model, run_folder / "checkpoints" / "last.ckpt")
    assert run(str(run_folder), "one", "--texts", "texts.txt", "--positions", "40", "--out", str(tmp_path / "out")) == 0
    report = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (report["positions"], report["names"]) == (40, ["run", "one"])
    assert report["nll_1"] == pytest.approx(5.67, abs=0.2)  # log 290: it is untrained
    assert "run (1) and one (2)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("one two", "one is a language model: name texts to compare it on with --texts"),
        ("one two --texts texts.txt --data data.yaml", "--data cannot be given with --texts"),
        ("one two --texts texts.txt --measures kl --split val", "--split and --measures cannot be given with --texts"),
        ("a b --data d.yaml --positions 9 --lens", "--positions and --lens cannot be given without --texts"),
        ("one --texts texts.txt", "two language models or more are compared on texts, got 1: one"),
        ("one absent/model --texts texts.txt", "absent/model cannot be read as a causal language model"),
        ("one two --texts none.txt", "none.txt"),
        ("one two --texts texts.txt --prefix end", "prefix must be one of none, bos, separator"),
        ("one two --texts texts.txt --length 8 --stride 9", "a stride of 9 leaves tokens out"),
        ("one two --texts texts.txt --rows some", "rows must be one of"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(command: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command.split()) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_three_models_are_compared_pair_by_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("hf:one", "two", "one", "--texts", "texts.txt", "--budget", "2", "--out", str(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert "KL(1||2)" in printed
    assert "perplexity" in printed
    with (tmp_path / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["kl_12"]) > 0 for row in rows] == [True, False, True]
    alone = json.loads((tmp_path / "1-2" / "comparison.json").read_text())
    assert float(rows[2]["kl_12"]) == alone["kl_12"]
    assert f"wrote {tmp_path / '0-2' / 'comparison.png'}" in printed.replace("\n", "")
