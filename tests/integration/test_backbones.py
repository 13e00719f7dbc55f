"""A training on another library's backbone goes on, and is measured, when the files that it began with are gone."""

import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from lightning_modules.checkpoints import load_softmax_models
from scripts import compare, evaluate, train
from scripts.cli.entry_point import run_command

SHORT = (
    *("--trainer.accelerator", "cpu", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1"),
    *(
        "--trainer.num_sanity_val_steps",
        "0",
        "--trainer.enable_progress_bar",
        "false",
        "--trainer.log_every_n_steps",
        "1",
    ),
    *("--trainer.enable_model_summary", "false"),
)


def run(command: ModuleType, *arguments: object) -> int:
    with pytest.raises(SystemExit) as ending:
        run_command(command.main, [str(argument) for argument in arguments])
    return int(ending.value.code or 0)


def hf_folder(folder: Path) -> str:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(image_size=16, patch_size=8, **sizes)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.5] * 3)
    processor.save_pretrained(folder)
    return f"hf:{folder}"


def timm_file(file: Path) -> tuple[str, str]:
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("test_resnet", num_classes=6).state_dict(), file)
    return "timm:test_resnet", str(file)


def backbone(library: str, at: Path) -> dict[str, object]:
    if library == "hf":
        return {"name": hf_folder(at)}
    name, weights = timm_file(at)
    return {"name": name, "weights": weights, "size": 32}


@pytest.mark.parametrize("library", ["hf", "timm"])
def test_the_files_are_needed_when_a_training_starts_and_never_again(
    library: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    siblings = library == "hf"
    torch.manual_seed(0)
    gone = tmp_path / ("model.pth" if library != "hf" else "model")
    arguments = {
        "dim": 4,
        "embedding": {"class_path": "likeness.networks.Backbone", "init_args": backbone(library, gone)},
        "unembedding": {"class_path": "likeness.networks.LinearHead"},
    } | ({"num_members": 2} if siblings else {})
    kind = "SiblingClassifiers" if siblings else "SoftmaxClassifier"
    data = {"class_path": "datamodules.Digits", "init_args": {"batch_size": 8, "eval_batch_size": 20}}
    config = tmp_path / "run.yaml"
    config.write_text(
        yaml.safe_dump({"model": {"class_path": f"lightning_modules.{kind}", "init_args": arguments}, "data": data})
    )
    line = ("fit", "--config", config, "--run_dir", tmp_path / "run", *SHORT)
    assert run(train, *line, "--trainer.max_epochs", 1) == 0, capsys.readouterr().err
    x = torch.arange(64, dtype=torch.uint8).remainder(17).view(1, 1, 8, 8)
    before = [model.embed(x) for _, model in load_softmax_models(tmp_path / "run")]

    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    after = [model.embed(x) for _, model in load_softmax_models(tmp_path / "run")]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    exported = [model.embed(x) for _, model in load_softmax_models(tmp_path / "run" / "weights.safetensors")]
    assert all(torch.equal(*pair) for pair in zip(before, exported, strict=True))
    assert run(train, *line, "--trainer.max_epochs", 2, "--ckpt_path", "last") == 0, capsys.readouterr().err
    if not siblings:
        return
    few = ("--limit", 20, "--out", tmp_path / "out")
    assert run(evaluate, tmp_path / "run", *few) == 0, capsys.readouterr().err
    twice = (tmp_path / "run", tmp_path / "run", "--measures", "kl", "--out", tmp_path / "out")
    assert run(compare, *twice) == 0, capsys.readouterr().err
