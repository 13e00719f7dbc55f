"""W&B through the training command: over a run's segments, and with the service out of reach."""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scripts.cli.entry_point import run_command as in_process
from scripts.train import main
from tests.integration.commands import QUIET, command
from tests.wandb_records import finished_records, history, records, summary

SHORT = ("--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", "1", "--trainer.num_sanity_val_steps", "0")
SIBLINGS = ("--config", "tests/integration/siblings.yaml", "--config", "configs/callbacks/label_geometry.yaml")
OFFLINE, ONLINE = ("--config", "configs/logger/wandb_offline.yaml"), ("--config", "configs/logger/wandb.yaml")
RECORDER, TERMINATE = "tests.integration.recorder.Recorder", "tests.integration.terminate.Terminate"
MEDIA = ("figures/", "tables/", "labels/disagreements")
SECRETS = {"WANDB_API_KEY": "0123456789abcdef" * 2 + "01234567", "HF_TOKEN": "hf_" + "fedcba9876543210"}


def arguments(run_dir: Path, *more: str, steps: int = 30) -> tuple[str, ...]:
    return ("fit", *SIBLINGS, *QUIET, *SHORT, "--run_dir", str(run_dir), "--trainer.max_steps", str(steps), *more)


def fit(run_dir: Path, *more: str, steps: int = 30) -> int:
    """The command in this process, for what no kill is needed for: two seconds instead of eight."""
    with pytest.raises(SystemExit) as end:
        in_process(main, arguments(run_dir, *more, steps=steps))
    assert isinstance(end.value.code, int)
    return end.value.code


def in_csv(run_dir: Path) -> dict[tuple[str, int], float]:
    """Every metric's every value in metrics.csv, by key and step."""
    with (run_dir / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    cells = ((key, int(row["step"]), value) for row in rows for key, value in row.items() if value and key != "step")
    return {(key, step): float(value) for key, step, value in cells}


def scalars(rows: list[dict[str, Any]]) -> list[tuple[tuple[str, int], float]]:
    """The same of W&B rows; W&B's own columns, figures and tables left out."""
    return [
        ((key, row["trainer/global_step"]), value)
        for row in rows
        for key, value in row.items()
        if not key.startswith(("_", *MEDIA)) and key != "trainer/global_step"
    ]


def test_three_segments_are_one_run_with_every_step_once(tmp_path: Path) -> None:
    often = ("--checkpoint.every_n_train_steps", "5", *OFFLINE)
    crash = ("--trainer.callbacks+", RECORDER, "--trainer.callbacks.directory", str(tmp_path / "record"))
    killed = command("train", *arguments(tmp_path, *often, *crash, "--trainer.callbacks.crash_at_step", "17"))
    assert killed.status == 9, killed.output  # two steps behind a checkpoint
    again = (*often, "--auto_resume", "true", "--allow_changes", "true")
    assert fit(tmp_path, *again, "--trainer.callbacks+", TERMINATE, "--trainer.callbacks.at_step", "23") == 143
    assert fit(tmp_path, *again) == 0

    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    run_id = (tmp_path / "wandb_id").read_text()
    assert [path.parent.name.rsplit("-", 1)[1] for path in files] == [run_id] * 3
    found = [list(records(files[0])), *(finished_records(path) for path in files[1:])]
    rows = [row for segment in found for row in history(segment)]
    assert max(Counter(place for place, _ in scalars(rows)).values()) == 1
    assert dict(scalars(rows)) == in_csv(tmp_path)
    assert [row["_step"] for row in rows] == list(range(31))  # the last has the figures of the end

    best = min(value for (key, _), value in in_csv(tmp_path).items() if key == "train/loss")
    assert summary(found[-1])["train/loss"] == {"min": best}
    config = {item.key: json.loads(item.value_json) for record in found[-1] for item in record.config.update}
    assert config["model"]["class_path"] == "lightning_modules.SiblingClassifiers"
    assert config["data"]["init_args"]["batch_size"] == 100
    (run,) = (record.run for record in found[-1] if record.WhichOneof("record_type") == "run")
    assert run.run_group.startswith("SiblingClassifiers-Digits-")
    assert {"SiblingClassifiers", "Digits"} <= set(run.tags)

    pictures = list(tmp_path.glob("wandb/*/files/media/**/*.png"))
    assert pictures
    for path in pictures:
        assert np.asarray(Image.open(path).convert("L")).std() > 5, f"{path} is constant"
    assert "leet" not in killed.output
    assert killed.output.count("W&B run") == 1


@pytest.fixture(autouse=True)
def _wandb_of_its_own() -> Iterator[None]:
    """wandb reads the environment once, and a command would join the process that an earlier test has started."""
    import wandb

    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user's environment holds, and a service at whose address nobody answers."""
    for name, value in {**SECRETS, "WANDB_BASE_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("_secrets")
@pytest.mark.filterwarnings("ignore:W&B cannot be reached")
def test_training_goes_on_without_the_service_and_no_secret_is_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    short = tmp_path / "short.yaml"
    logger = {"class_path": "callbacks.loggers.RunWandbLogger", "init_args": {"save_dir": "${run_dir}", "timeout": 2}}
    short.write_text(json.dumps({"trainer": {"logger+": [logger]}}))
    assert fit(tmp_path / "run", "--config", str(short), steps=10) == 0

    (file,) = tmp_path.glob("run/wandb/offline-run-*/*.wandb")
    assert dict(scalars(history(finished_records(file)))) == in_csv(tmp_path / "run")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 10
    output = "".join(capfd.readouterr())
    for secret in SECRETS.values():
        assert [path for path in written if secret.encode() in path.read_bytes()] == []
        assert secret not in output
