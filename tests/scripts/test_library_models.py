"""Commands take models of other libraries by name, without a checkpoint of ours."""

import csv
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from lightning_modules import PretrainedClassifier
from scripts import compare, evaluate, hubness, inspect_head, train
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


def evaluated(subcommand: str, name: str, folder: Path, *options: object) -> int:
    quiet = ("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false")
    return run(train, subcommand, "--model", name, *quiet, "--run_dir", folder / "run", *options)


def test_the_training_command_tests_it_as_evaluate_does(name: str, data: Path, tmp_path: Path) -> None:
    assert evaluated("test", name, tmp_path, "--config", data) == 0
    assert run(evaluate, name, "--data", data, "--out", tmp_path / "e") == 0
    (found,), (wanted,) = rows(tmp_path / "run" / "test_metrics.csv"), rows(tmp_path / "e" / "evaluation.csv")
    assert float(found["test/nll"]) == pytest.approx(float(wanted["nll"]), rel=1e-5)
    assert float(found["test/accuracy"]) == pytest.approx(float(wanted["accuracy"]))


@pytest.mark.parametrize(
    ("subcommand", "change", "said"),
    [
        ("test", ("mobilenet_v3_small", "no_such_model"), "torchvision:no_such_model that can be loaded"),
        ("validate", ("?", "?num_classes=4&"), "size mismatch for classifier.3.weight"),
        ("test", (":", "="), "torchvision=mobilenet"),
        ("test", ("weights", "num_classes=10&w"), "there is no option 'w', only weights, num_classes, size"),
        ("fit", ("", ""), "is evaluated and not trained"),
    ],
)
def test_what_cannot_be_tested_is_one_line(
    subcommand: str,
    change: tuple[str, str],
    said: str,
    name: str,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluated(subcommand, name.replace(*change, 1), tmp_path, "--config", data) != 0
    errors = capsys.readouterr().err
    assert said in errors.splitlines()[-1]
    assert "Traceback" not in errors


def test_other_labels_and_random_weights_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "six.pth"
    torch.save(models.mobilenet_v3_small(num_classes=6).state_dict(), file)
    with pytest.raises(ValueError, match=r"six.pth has 6 labels, but the data have 10"):
        PretrainedClassifier(10, f"torchvision:mobilenet_v3_small?weights={file}")
    with pytest.raises(ValueError, match=r"timm:resnet18 has random weights: name its own, as in timm:resnet18\?weigh"):
        PretrainedClassifier(10, "timm:resnet18")
    with pytest.raises(ValueError, match="would have a random head: num_classes is of weights in a file"):
        PretrainedClassifier(10, "timm:resnet18?weights=pretrained&num_classes=10")


def test_a_model_that_is_not_there_is_one_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(evaluate, "timm:no_such_model", "--data", data) == 1
    error = capsys.readouterr().err
    assert error.startswith("likeness: error: there is no model timm:no_such_model that can be loaded")
    assert error.count("\n") == 1
