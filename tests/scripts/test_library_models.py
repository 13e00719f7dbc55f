"""Commands take models of other libraries by name, without a checkpoint of ours."""

import csv
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from scripts import compare, evaluate, hubness, inspect_head
from scripts.cli.entry_point import run_command

models = pytest.importorskip("torchvision.models")
DATA = "data:\n  class_path: datamodules.Digits\n  init_args: {eval_batch_size: 100}\n"


def run(command: ModuleType, *arguments: object) -> int:
    with pytest.raises(SystemExit) as ending:
        run_command(command.main, [str(argument) for argument in arguments])
    return int(ending.value.code or 0)


@pytest.fixture(scope="module")
def name(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small network of ten classes with weights in a file."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.save(models.mobilenet_v3_small(num_classes=10).state_dict(), file)
    return f"torchvision:mobilenet_v3_small?weights={file}&size=32"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "digits.yaml").write_text(DATA)
    return tmp_path / "digits.yaml"


def rows(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_evaluate(name: str, data: Path, tmp_path: Path) -> None:
    assert run(evaluate, name, "--data", data, "--limit", 50, "--out", tmp_path / "e") == 0
    (row,) = rows(tmp_path / "e" / "evaluation.csv")
    assert row["model"] == "mobilenet_v3_small"
    assert 0 <= float(row["accuracy"]) <= 1


def test_compare(name: str, data: Path, tmp_path: Path) -> None:
    other = "torchvision:mobilenet_v3_small?num_classes=10&size=32"
    assert run(compare, name, other, "--data", data, "--measures", "kl", "--out", tmp_path / "c") == 0
    (row,) = rows(tmp_path / "c" / "comparison.csv")
    assert float(row["kl_ab"]) > 0


def test_inspect_head(name: str, tmp_path: Path) -> None:
    assert run(inspect_head, name, "--pair", 0, 1, "--out", tmp_path / "i") == 0
    assert (tmp_path / "i" / "pairs.csv").is_file()


def test_hubness(name: str, data: Path, tmp_path: Path) -> None:
    assert run(hubness, "analyse", data, "--encoder", name, "--k", 5, "--out", tmp_path / "h") == 0
    assert (tmp_path / "h" / "report.json").is_file()


def test_a_model_that_is_not_there_is_one_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(evaluate, "timm:no_such_model", "--data", data) == 1
    error = capsys.readouterr().err
    assert error.startswith("likeness: error: there is no model timm:no_such_model that can be loaded")
    assert error.count("\n") == 1
