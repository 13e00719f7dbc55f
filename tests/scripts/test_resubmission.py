"""Runs that are done, moved, copied or killed, and are submitted again."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from callbacks.run import run_files
from callbacks.run.segments import read_segments
from tests.scripts.training import Training, snapshot

EARLY = ("--config", "configs/callbacks/early_stopping.yaml", "--trainer.callbacks.patience", "1")
ENDS = {
    "finished, averaged": ("--config", "configs/callbacks/ema.yaml", "--config", "configs/callbacks/best_nll.yaml"),
    "stopped early": (*EARLY, "--trainer.max_epochs", "30", "--model.optimizer.init_args.lr", "1.0"),
    "at max_steps": ("--trainer.max_epochs", "-1", "--trainer.max_steps", "3"),
    "at max_time": ("--trainer.max_epochs", "-1", "--trainer.max_time", "00:00:00:01"),
    "logged offline": ("--config", "configs/logger/wandb_offline.yaml"),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_run_that_is_done_is_left_as_it_is(train: Training, end: str, tmp_path: Path) -> None:
    import wandb

    line = ("fit", "--auto_resume", "--model.optimizer", "SGD", "--model.optimizer.init_args.lr", "0.01", *ENDS[end])
    assert train(*line)[0] == 0
    wandb.teardown()  # its service writes the end of a run beside the process that trained, which goes on here
    before = snapshot(train.run_dir)
    code, errors = train(*line)
    assert code == 0, errors
    assert f"nothing is left to do in {train.run_dir}" in errors
    assert snapshot(train.run_dir) == before
    moved = train.run_dir.rename(tmp_path / "moved")
    train.run_dir = moved
    assert "nothing is left to do" in train(*line)[1]
    assert snapshot(moved) == before


def test_a_run_that_was_stopped_early_goes_on_with_other_settings_only(train: Training) -> None:
    line = ("fit", "--auto_resume", *ENDS["stopped early"])
    assert train(*line)[0] == 0
    (stopped,) = read_segments(train.run_dir)
    assert "ended early" in train(*line, "--trainer.max_epochs", "31")[1]
    code, errors = train(*line, "--trainer.callbacks.patience", "3", "--allow_changes")
    assert code == 0, errors
    assert read_segments(train.run_dir)[-1]["first_step"] == stopped["last_step"]
    assert read_segments(train.run_dir)[-1]["last_step"] > stopped["last_step"]


def test_a_run_that_was_killed_behind_its_last_checkpoint_is_completed(train: Training) -> None:
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


def test_a_run_that_was_moved_keeps_its_best_checkpoints(train: Training, tmp_path: Path) -> None:
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


def test_a_run_that_was_copied_or_renamed_goes_on_exactly(train: Training, tmp_path: Path) -> None:
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


def test_a_checkpoint_from_before_paths_were_relative_keeps_its_best(train: Training, tmp_path: Path) -> None:
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
