"""The training command: what LightningCLI does by default and must not do here."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from callbacks.run import run_files
from callbacks.run.segments import read_segments
from datamodules import Digits
from lightning_modules import SoftmaxClassifier
from lightning_modules.checkpoints import load_module
from scripts.cli.entry_point import run_command
from scripts.cli.lightning_cli import CONFIGS, compose
from scripts.train import main

DIGITS = ("--config", "configs/data/digits.yaml", "--data.batch_size", "64")
MODEL = ("--model", "lightning_modules.SoftmaxClassifier", "--model.embedding.width", "8")
SHORT = (
    *("--trainer.accelerator", "cpu", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"),
    *("--trainer.limit_val_batches", "1", "--trainer.num_sanity_val_steps", "0", "--trainer.log_every_n_steps", "1"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
)


class Door:
    """The command in this process, in an empty run directory."""

    def __init__(self, run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.run_dir = run_dir
        self.capsys = capsys

    def __call__(self, subcommand: str, *options: str) -> tuple[int, str]:
        """Exit status, and what stands on standard error."""
        with pytest.raises(SystemExit) as end:
            run_command(main, [subcommand, *MODEL, *DIGITS, *SHORT, "--run_dir", str(self.run_dir), *options])
        assert isinstance(end.value.code, int)
        return end.value.code, self.capsys.readouterr().err

    @property
    def checkpoint(self) -> dict[str, Any]:
        content: dict[str, Any] = torch.load(self.run_dir / "checkpoints" / "last.ckpt", weights_only=True)
        return content

    @property
    def config(self) -> dict[str, Any]:
        content: dict[str, Any] = yaml.safe_load((self.run_dir / "config.yaml").read_text())
        return content


@pytest.fixture
def train(tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Door:
    monkeypatch.chdir(root)
    return Door(tmp_path / "run", capsys)


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every file; the lock is taken and let go by every start."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def test_a_run_directory_holds_everything(train: Door) -> None:
    status, errors = train("fit")
    assert status == 0, errors
    assert errors.splitlines()[0] == f"likeness: run directory {train.run_dir}"
    assert {path.name for path in train.run_dir.iterdir()} == {
        *("checkpoints", "config.yaml", "metrics.csv", "segments.json", "weights.safetensors", ".likeness")
    }


def test_the_saved_configuration_repeats_the_run(train: Door, tmp_path: Path, root: Path) -> None:
    best = ("--config", "configs/callbacks/best_nll.yaml")
    assert train("fit", "--seed_everything", "5", "--overwrite", "true", *best)[0] == 0
    first = train.checkpoint["state_dict"]
    before = (train.run_dir / "metrics.csv").read_bytes()
    (train.run_dir / "checkpoints" / "best.ckpt").unlink()
    again = ["fit", "--config", str(train.run_dir / "config.yaml"), "--run_dir", str(tmp_path / "again")]
    with pytest.raises(SystemExit) as end:
        run_command(main, again)
    assert end.value.code == 0
    assert (train.run_dir / "metrics.csv").read_bytes() == before == (tmp_path / "again" / "metrics.csv").read_bytes()
    assert (tmp_path / "again" / "checkpoints" / "best.ckpt").exists()
    assert not (train.run_dir / "checkpoints" / "best.ckpt").exists()
    second = torch.load(tmp_path / "again" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_configuration_beats_the_checkpoint(train: Door) -> None:
    assert train("fit", "--model.optimizer.class_path", "Adam", "--model.optimizer.init_args.lr", "0.003")[0] == 0
    more = ("--ckpt_path", "last", "--trainer.max_epochs", "2", "--model.optimizer.class_path", "Adam")
    assert train("fit", *more, "--model.optimizer.init_args.lr", "0.5", "--allow_changes")[0] == 0
    assert train.config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.5
    assert train.checkpoint["hyper_parameters"]["optimizer"]["init_args"]["lr"] == 0.5
    assert train.checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] == 0.5


def test_evaluation_leaves_the_run_as_it_was_and_takes_its_last_weights(train: Door) -> None:
    assert train("fit")[0] == 0
    before = {path.name: path.read_bytes() for path in train.run_dir.iterdir() if path.is_file()}
    status, errors = train("test")
    assert status == 0, errors
    assert all((train.run_dir / name).read_bytes() == content for name, content in before.items())

    model = SoftmaxClassifier.load_from_checkpoint(train.run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    data = Digits()
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    with torch.no_grad(), (train.run_dir / "test_metrics.csv").open(newline="") as file:
        assert len(batch.y) == 360
        assert float(next(csv.DictReader(file))["test/nll"]) == pytest.approx(model.eval().loss(batch).item(), rel=1e-6)


def test_the_seed_is_a_number_and_reaches_model_and_data(train: Door) -> None:
    assert train("fit")[0] == 0
    assert train.config["seed_everything"] == 0
    assert train.checkpoint["hyper_parameters"]["seed"] == 0
    assert train("fit", "--overwrite", "true", "--seed_everything", "7")[0] == 0
    assert train.checkpoint["hyper_parameters"]["seed"] == 7
    assert train.checkpoint["Digits"]["order"]["seeds"] == [7]


def test_values_are_interpolated_across_files_and_lists_append(train: Door, tmp_path: Path) -> None:
    extra = tmp_path / "extra.yaml"
    extra.write_text(
        "trainer:\n  callbacks+:\n    - class_path: pytorch_lightning.callbacks.ModelCheckpoint\n"
        "      init_args: {dirpath: '${run_dir}/checkpoints', filename: 'every-${trainer.max_epochs}'}\n"
    )
    status, errors = train("fit", "--config", "configs/callbacks/learning_rate.yaml", "--config", str(extra))
    assert status == 0, errors
    assert (train.run_dir / "checkpoints" / "every-1.ckpt").exists()
    kinds = [callback["class_path"].rsplit(".", 1)[1] for callback in train.config["trainer"]["callbacks"]]
    assert kinds == ["LearningRateMonitor", "ModelCheckpoint"]


@pytest.mark.parametrize(
    ("options", "status", "named"),
    [
        (("--trainer.max_epoch", "2"), 2, "--trainer.max_epoch 2"),  # an abbreviation
        (("--trainer.max_epochs", "many"), 2, "many"),
        (("--model.widht", "2"), 2, "widht"),
        (("--model", "lightning_modules.Softmax"), 2, "Softmax"),
        (("--config", "nowhere.yaml"), 2, "nowhere.yaml"),
        (("--ckpt_path", "nowhere.ckpt"), 2, "nowhere.ckpt"),
        (("--ckpt_path", "last"), 2, "last.ckpt"),
        (("--model.dim", "0"), 2, "dim"),
        (("--data.batch_size", "5000"), 2, "5000"),
        (("--data", "datamodules.Docstrings"), 1, "needs the input_shape of its data, and datamodules.Docstrings"),
        (("--run_dir", "setup.cfg/run"), 1, "run_dir setup.cfg/run"),
    ],
)
def test_bad_input_is_one_line_that_names_it(train: Door, options: tuple[str, ...], status: int, named: str) -> None:
    code, errors = train("fit", *options)
    assert code == status, errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith("likeness: error: ")
    assert named in last
    assert "Traceback" not in errors


def test_a_started_run_is_refused_and_untouched(train: Door) -> None:
    assert train("fit")[0] == 0
    before = (train.run_dir / "metrics.csv").read_bytes()
    code, errors = train("fit")
    assert code == 1
    assert "already holds a run" in errors
    assert (train.run_dir / "metrics.csv").read_bytes() == before


def test_a_checkpoint_of_another_class_is_refused(train: Door) -> None:
    assert train("fit")[0] == 0
    code, errors = train("fit", "--ckpt_path", "last", "--model", "lightning_modules.SiblingClassifiers")
    assert code == 1
    assert "holds a lightning_modules.SoftmaxClassifier" in errors


def test_labels_that_do_not_fit_the_model_are_named(train: Door) -> None:
    assert train("fit")[0] == 0
    more = ("--trainer.max_epochs", "2")
    options = (
        *more,
        "--data",
        "datamodules.Radial",
        "--data.num_classes",
        "6",
        "--ckpt_path",
        "last",
        "--allow_changes",
    )
    code, errors = train("fit", *options)
    assert code == 1
    assert "size mismatch" in errors


def test_a_changed_configuration_is_listed_and_needs_permission(train: Door) -> None:
    assert train("fit")[0] == 0
    changed = ("--ckpt_path", "last", "--model.dim", "3", "--data.batch_size", "32", "--trainer.max_epochs", "2")
    code, errors = train("fit", *changed)
    assert code == 2
    assert "data.init_args.batch_size: 32 (was 64); model.init_args.dim: 3 (was 2)" in errors
    assert "max_epochs" not in errors
    assert train.config["model"]["init_args"]["dim"] == 2
    code, errors = train("fit", *changed, "--allow_changes")
    assert "size mismatch" in errors


def test_the_same_line_starts_a_run_and_continues_it(train: Door) -> None:
    line = ("--auto_resume", "--checkpoint.every_n_train_steps", "1", "--trainer.max_steps")
    assert train("fit", *line, "1")[0] == 0
    first = (train.run_dir / "metrics.csv").read_text()
    assert train("fit", *line, "2")[0] == 0
    assert (train.run_dir / "metrics.csv").read_text().startswith(first.splitlines()[0])
    assert train("fit", *line, "2")[0] == 0  # nothing is left to do, which is no segment
    segments = read_segments(train.run_dir)
    assert [(segment["first_step"], segment["last_step"]) for segment in segments] == [(0, 1), (1, 2)]
    assert {segment["why"] for segment in segments} == {"finished"}


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_anew(train: Door) -> None:
    run_files.mark(train.run_dir)
    run_files.note(train.run_dir / "metrics.csv").write_text("step\n17\n")
    assert train("fit", "--auto_resume")[0] == 0
    assert "17" not in (train.run_dir / "metrics.csv").read_text().splitlines()


@pytest.mark.parametrize("option", ["--auto_resume", "--overwrite"])
def test_a_directory_of_another_project_is_left_alone(train: Door, option: str) -> None:
    for name in ("figures/plot.png", "checkpoints/last.ckpt", "config.yaml", "metrics.csv"):
        (train.run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (train.run_dir / name).write_text("mine")
    before = snapshot(train.run_dir)
    code, errors = train("fit", option)
    assert code == 1
    assert "no run's: checkpoints/last.ckpt, config.yaml, figures/plot.png, metrics.csv" in errors
    assert snapshot(train.run_dir) == before


def test_a_run_whose_checkpoints_are_not_mounted_is_not_begun_anew(train: Door) -> None:
    assert train("fit", "--auto_resume")[0] == 0
    (train.run_dir / "checkpoints").rename(train.run_dir.with_name("unmounted"))
    (train.run_dir / "checkpoints").mkdir()
    before = snapshot(train.run_dir)
    code, errors = train("fit", "--auto_resume")
    assert code == 2
    assert "has trained to step 2, but there is no checkpoint" in errors
    assert snapshot(train.run_dir) == before
    assert train("fit", "--overwrite")[0] == 0


@pytest.mark.parametrize("subcommand", ["test", "predict"])
def test_an_evaluation_of_no_run_leaves_no_trace(train: Door, subcommand: str) -> None:
    code, errors = train(subcommand)
    assert code == 2
    assert "there is no checkpoint" in errors
    assert not train.run_dir.exists()


@pytest.mark.parametrize(
    ("given", "then", "steps", "validations"),
    [
        (("--checkpoint.every_n_epochs", "1"), ("--checkpoint.every_n_train_steps", "1"), 2, 1),
        (("--trainer.max_epochs", "1"), ("--trainer.max_steps", "3"), 3, 1),
        (("--trainer.max_steps", "3"), ("--trainer.max_epochs", "1"), 2, 1),
        (("--trainer.check_val_every_n_epoch", "5"), ("--trainer.val_check_interval", "1"), 2, 2),
    ],
)
def test_the_later_of_two_options_holds(
    train: Door, given: tuple[str, str], then: tuple[str, str], steps: int, validations: int
) -> None:
    code, errors = train("fit", *given, *then)
    assert code == 0, errors
    assert read_segments(train.run_dir)[-1]["last_step"] == steps
    with (train.run_dir / "metrics.csv").open(newline="") as file:
        assert len([row for row in csv.DictReader(file) if row["val/nll"]]) == validations


def test_an_empty_run_dir_is_refused(train: Door) -> None:
    code, errors = train("fit", "--run_dir", "")
    assert code == 2
    assert "--run_dir is empty" in errors


EARLY = ("--config", "configs/callbacks/early_stopping.yaml", "--trainer.callbacks.patience", "1")
ENDS = {
    "finished, averaged": ("--config", "configs/callbacks/ema.yaml", "--config", "configs/callbacks/best_nll.yaml"),
    "stopped early": (*EARLY, "--trainer.max_epochs", "30", "--model.optimizer.init_args.lr", "1.0"),
    "at max_steps": ("--trainer.max_epochs", "-1", "--trainer.max_steps", "3"),
    "at max_time": ("--trainer.max_epochs", "-1", "--trainer.max_time", "00:00:00:01"),
    "logged offline": ("--config", "configs/logger/wandb_offline.yaml"),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_run_that_is_done_is_left_as_it_is(train: Door, end: str, tmp_path: Path) -> None:
    line = ("fit", "--auto_resume", "--model.optimizer", "SGD", "--model.optimizer.init_args.lr", "0.01", *ENDS[end])
    assert train(*line)[0] == 0
    before = snapshot(train.run_dir)
    for _ in range(2):
        code, errors = train(*line)
        assert code == 0, errors
        assert f"nothing is left to do in {train.run_dir}" in errors
        assert snapshot(train.run_dir) == before
    moved = train.run_dir.rename(tmp_path / "moved")
    train.run_dir = moved
    assert "nothing is left to do" in train(*line)[1]
    assert snapshot(moved) == before


def test_a_run_that_was_stopped_early_goes_on_with_other_settings_only(train: Door) -> None:
    line = ("fit", "--auto_resume", *ENDS["stopped early"])
    assert train(*line)[0] == 0
    (stopped,) = read_segments(train.run_dir)
    assert "ended early" in train(*line, "--trainer.max_epochs", "31")[1]
    code, errors = train(*line, "--trainer.callbacks.patience", "3", "--allow_changes")
    assert code == 0, errors
    assert read_segments(train.run_dir)[-1]["first_step"] == stopped["last_step"]
    assert read_segments(train.run_dir)[-1]["last_step"] > stopped["last_step"]


def test_a_run_that_was_killed_behind_its_last_checkpoint_is_completed(train: Door) -> None:
    line = ("fit", "--auto_resume", *ENDS["finished, averaged"], *ENDS["stopped early"])
    assert train(*line)[0] == 0
    weights, metrics = ((train.run_dir / name).read_bytes() for name in ("weights.safetensors", "metrics.csv"))
    checkpoint = (train.run_dir / "checkpoints" / "last.ckpt").read_bytes()
    (segment,) = read_segments(train.run_dir)
    (train.run_dir / "segments.json").write_text(json.dumps([segment | {"why": "running", "last_step": None}]))
    (train.run_dir / "weights.safetensors").unlink()
    assert train(*line)[0] == 0
    assert (train.run_dir / "weights.safetensors").read_bytes() == weights
    assert (train.run_dir / "metrics.csv").read_bytes() == metrics
    assert (train.run_dir / "checkpoints" / "last.ckpt").read_bytes() == checkpoint
    last = segment["last_step"]
    assert [(s["first_step"], s["last_step"]) for s in read_segments(train.run_dir)] == [(0, None), (last, last)]
    assert "nothing is left to do" in train(*line)[1]


def test_a_run_that_was_moved_keeps_its_best_checkpoints(train: Door, tmp_path: Path) -> None:
    line = ("fit", "--auto_resume", "--config", "configs/callbacks/best_nll.yaml", "--trainer.max_epochs")
    assert train(*line, "1")[0] == 0
    assert str(tmp_path) not in json.dumps(train.checkpoint["callbacks"], default=str)
    train.run_dir = train.run_dir.rename(tmp_path / "moved")
    (tmp_path / "run").touch()  # nothing may be written where it was
    code, errors = train(*line, "2")
    assert code == 0, errors  # warnings are errors, and Lightning warns where it forgets the best
    (best,) = (state for key, state in train.checkpoint["callbacks"].items() if key.startswith("ModelCheckpoint"))
    assert best["best_model_path"] == "${run_dir}/checkpoints/best.ckpt"
    assert list(best["best_k_models"]) == ["${run_dir}/checkpoints/best.ckpt"]
    assert sorted(path.name for path in (train.run_dir / "checkpoints").iterdir()) == [
        *("best.ckpt", "last.ckpt", "previous.ckpt")
    ]


def test_a_run_that_was_copied_or_renamed_goes_on_exactly(train: Door, tmp_path: Path) -> None:
    line = ("fit", "--auto_resume", "--config", "configs/callbacks/best_nll.yaml", "--trainer.max_epochs")
    assert train(*line, "2", "--run_dir", str(tmp_path / "whole"))[0] == 0
    assert train(*line, "1")[0] == 0
    shutil.copytree(train.run_dir, tmp_path / "copy")
    before = snapshot(train.run_dir)
    train.run_dir = tmp_path / "copy"
    assert train(*line, "2")[0] == 0
    assert snapshot(tmp_path / "run") == before
    (tmp_path / "run").rename(tmp_path / "renamed")
    train.run_dir = tmp_path / "renamed"
    assert train(*line, "2")[0] == 0
    for run in ("copy", "renamed"):
        for name in ("weights.safetensors", "metrics.csv"):
            assert (tmp_path / run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (run, name)


def test_a_checkpoint_from_before_paths_were_relative_keeps_its_best(train: Door, tmp_path: Path) -> None:
    line = ("fit", "--auto_resume", "--config", "configs/callbacks/best_nll.yaml", "--trainer.max_epochs")
    assert train(*line, "1")[0] == 0
    last = train.run_dir / "checkpoints" / "last.ckpt"
    content = train.checkpoint
    content["callbacks"] = run_files.absolute_paths(content["callbacks"], str(train.run_dir))
    del content["stopped_early"]
    torch.save(content, last)
    shutil.rmtree(train.run_dir / ".likeness")
    train.run_dir = train.run_dir.rename(tmp_path / "moved")
    code, errors = train(*line, "2")
    assert code == 0, errors
    (best,) = (state for key, state in train.checkpoint["callbacks"].items() if key.startswith("ModelCheckpoint"))
    assert list(best["best_k_models"]) == ["${run_dir}/checkpoints/best.ckpt"]
    assert [segment["first_step"] for segment in read_segments(train.run_dir)] == [0, 2]


def test_the_home_directory_is_meant_by_a_tilde_everywhere(
    train: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    best = ("--config", "configs/callbacks/best_nll.yaml", "--trainer.callbacks.dirpath", "~/best")
    assert train("fit", *best, "--run_dir", "~/run")[0] == 0
    assert (tmp_path / "run" / "metrics.csv").exists()
    assert (tmp_path / "best" / "best.ckpt").exists()
    code, errors = train("fit", *best, "--run_dir", "~/again", "--ckpt_path", "~/best/best.ckpt", "--allow_changes")
    assert code == 0, errors
    assert not (tmp_path / "~").exists()


def test_modes_of_files_follow_the_umask(train: Door) -> None:
    before = os.umask(0o027)
    try:
        assert train("fit", "--config", "configs/logger/wandb_offline.yaml")[0] == 0
        assert train("predict")[0] == 0
    finally:
        os.umask(before)
    ours = [path for path in train.run_dir.rglob("*") if path.is_file() and "wandb" not in path.parts]
    assert len(ours) > 8
    assert {str(path): oct(path.stat().st_mode & 0o777) for path in ours} == {str(path): "0o640" for path in ours}


def test_exported_weights_are_evaluated_and_not_trained(train: Door) -> None:
    averaged = ("--config", "configs/callbacks/ema.yaml")
    assert train("fit", *averaged)[0] == 0
    assert train("test", *averaged)[0] == 0
    by_checkpoint = (train.run_dir / "test_metrics.csv").read_bytes()
    weights = (*averaged, "--ckpt_path", str(train.run_dir / "weights.safetensors"))
    code, errors = train("test", *weights)
    assert code == 0, errors
    assert (train.run_dir / "test_metrics.csv").read_bytes() == by_checkpoint
    code, errors = train("fit", *weights)
    assert code == 2
    assert "weights.safetensors holds weights alone" in errors


def test_predictions_are_a_file(train: Door) -> None:
    assert train("fit")[0] == 0
    code, errors = train("predict")
    assert code == 0, errors
    model, data = load_module(train.run_dir).eval(), Digits()
    data.setup("predict")
    batch = next(iter(data.predict_dataloader()))
    with np.load(train.run_dir / "predictions.npz", allow_pickle=False) as found, torch.no_grad():
        assert set(found) == {"id", "labels", "log_probs", "representations"}
        np.testing.assert_array_equal(found["id"], np.arange(360))
        np.testing.assert_array_equal(found["labels"], batch.y)
        np.testing.assert_allclose(found["log_probs"], model(batch.x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("other", [("--ckpt_path", "last"), ("--overwrite",)])
def test_auto_resume_leaves_nothing_else_to_say(train: Door, other: tuple[str, ...]) -> None:
    code, errors = train("fit", "--auto_resume", *other)
    assert code == 2
    assert f"{other[0]} " in errors


def test_a_damaged_last_checkpoint_is_named_and_the_one_before_continues(train: Door) -> None:
    assert train("fit", "--checkpoint.every_n_train_steps", "1")[0] == 0
    last = train.run_dir / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    code, errors = train("fit", "--ckpt_path", "last", "--trainer.max_epochs", "2")
    assert code == 0, errors
    assert "last.ckpt is refused: it is truncated" in errors
    assert "continuing from" in errors
    assert read_segments(train.run_dir)[-1]["first_step"] == 1


def test_the_time_budget_stops_with_its_own_status(train: Door) -> None:
    code, errors = train("fit", "--stop_after", "0s", "--trainer.max_epochs", "50")
    assert code == 75, errors
    assert "stopped by the time budget after step 1" in errors
    assert read_segments(train.run_dir)[-1]["why"] == "stopped by the time budget"
    assert train("fit", "--auto_resume")[0] == 0
    code, errors = train("fit", "--overwrite", "--stop_after", "soon")
    assert code != 0
    assert "stop_after must be a time like 3h50m, 90s or 1d12h, got 'soon'" in errors


def test_the_exported_weights_are_the_model(train: Door) -> None:
    assert train("fit", "--config", "configs/callbacks/ema.yaml")[0] == 0
    exported = load_module(train.run_dir / "weights.safetensors")
    kept = load_module(train.run_dir)
    assert type(exported) is type(kept) is SoftmaxClassifier
    assert exported.hparams == kept.hparams
    for name, value in kept.state_dict().items():
        assert torch.equal(exported.state_dict()[name], value), name


def test_torchrun_without_ddp_is_refused(train: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    code, errors = train("fit", "--trainer.devices", "1", "--trainer.strategy", "single_device")
    assert code == 2
    assert "torchrun started 2 processes on 1 nodes, but trainer.devices x trainer.num_nodes is 1" in errors


def test_configuration_files_of_the_project_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = compose(["fit", "--config", "configs/data/digits.yaml", "--config=configs/model/none.yaml"])
    assert found[:3] == ["fit", "--config", str(CONFIGS / "trainer" / "default.yaml")]
    assert found[3:] == ["--config", str(CONFIGS / "data" / "digits.yaml"), "--config=configs/model/none.yaml"]
