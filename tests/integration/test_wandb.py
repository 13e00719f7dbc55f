"""An offline W&B run, written by the training door without an account and read back from its file."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.integration.doors import QUIET, door
from tests.wandb_records import finished_records, history

SHORT = ("--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", "1", "--trainer.num_sanity_val_steps", "0")


def fit(run_dir: Path, *more: str) -> None:
    configs = ("--config", "tests/integration/siblings.yaml", "--config", "configs/logger/wandb_offline.yaml")
    ended = door("train", "fit", *configs, *QUIET, *SHORT, "--run_dir", str(run_dir), *more)
    assert ended.status == 0, ended.output


def test_two_segments_are_one_run_with_every_step_once(tmp_path: Path) -> None:
    fit(tmp_path, "--trainer.max_epochs", "1")
    fit(tmp_path, "--trainer.max_epochs", "2", "--ckpt_path", "last")
    segments = sorted(tmp_path.glob("wandb/offline-run-*"))
    run_id = (tmp_path / "wandb_id").read_text()
    assert [path.name.rsplit("-", 1)[1] for path in segments] == [run_id, run_id]

    found = [finished_records(next(path.glob("*.wandb"))) for path in segments]
    rows = [row for segment in found for row in history(segment)]
    losses = [row["trainer/global_step"] for row in rows if "train/loss" in row]
    assert losses == list(range(20))
    keys = {key for row in rows for key in row}
    assert {"val/nll", "val/accuracy/2", "similarity/kl/mean", "similarity/m_cca_f/min"} <= keys

    config = {item.key: json.loads(item.value_json) for record in found[0] for item in record.config.update}
    assert config["model"]["class_path"] == "lightning_modules.SiblingClassifiers"
    assert config["data"]["init_args"]["batch_size"] == 100

    pictures = [path for segment in segments for path in segment.glob("files/media/**/*.png")]
    assert pictures
    for path in pictures:
        assert np.asarray(Image.open(path).convert("L")).std() > 5, f"{path} is constant"
