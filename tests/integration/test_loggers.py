"""TensorBoard, MLflow and trackio through the training command: killed, continued, and begun anew."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from callbacks.run.run_files import own
from tests.callbacks.loggers.logger_records import mlflow_records, tensorboard_records, trackio_records
from tests.integration.commands import QUIET, command
from tests.integration.test_wandb import RECORDER, SHORT, SIBLINGS, in_csv

pytestmark = pytest.mark.filterwarnings("ignore:.*loader strategy is deprecated.*")  # MLflow's use of SQLAlchemy

KINDS = ("tensorboard", "mlflow", "trackio")
LOGGERS = tuple(word for kind in KINDS for word in ("--config", f"configs/logger/{kind}.yaml"))
SECRETS = {"HF_TOKEN": "hf_" + "fedcba9876543210", "MLFLOW_TRACKING_PASSWORD": "0123456789abcdef"}
OFTEN = ("--checkpoint.every_n_train_steps", "5")


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What a user's environment holds."""
    for library in KINDS:
        pytest.importorskip(library)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    return SECRETS


def arguments(run_dir: Path, *more: str) -> tuple[str, ...]:
    return ("fit", *SIBLINGS, *QUIET, *SHORT, *OFTEN, "--run_dir", str(run_dir), "--trainer.max_steps", "20", *more)


@pytest.mark.long
def test_a_killed_run_goes_on_with_every_step_once_in_every_store(tmp_path: Path, secrets: dict[str, str]) -> None:
    run_dir = tmp_path / "run"
    crash = ("--trainer.callbacks+", RECORDER, "--trainer.callbacks.directory", str(tmp_path / "record"))
    killed = command("train", *arguments(run_dir, *LOGGERS, *crash, "--trainer.callbacks.crash_at_step", "17"))
    assert killed.status == 9, killed.output  # two steps behind a checkpoint
    assert not [line for line in killed.output.splitlines() if "alembic" in line or "trackio" in line.lower()]
    again = command("train", *arguments(run_dir, *LOGGERS, "--auto_resume", "true", "--allow_changes", "true"))
    assert again.status == 0, again.output

    records = {
        "tensorboard": tensorboard_records(run_dir),
        "mlflow": mlflow_records(f"sqlite:///{run_dir}/mlflow/mlflow.db", (run_dir / "mlflow_id").read_text()),
        "trackio": trackio_records(run_dir / "trackio", "likeness", (run_dir / "trackio_id").read_text()),
    }
    for name, found in records.items():
        logged = dict(found.scalars)
        assert max(Counter(place for place, _ in found.scalars).values()) == 1, name
        assert logged.keys() == in_csv(run_dir).keys(), name
        np.testing.assert_allclose([logged[p] for p in in_csv(run_dir)], list(in_csv(run_dir).values()), rtol=1e-6)
        assert found.steps("train/loss") == list(range(20)), name
        assert {key for key, _ in found.images} >= {"figures/label_similarity"}, name
        assert all(image.std() > 5 for image in found.images.values()), name
        assert {key for key, _ in found.tables} == {"labels/disagreements"}, name
        assert found.config["model"]["class_path"] == "lightning_modules.SiblingClassifiers", name

    written = [path for path in run_dir.rglob("*") if path.is_file()]
    assert {str(path.relative_to(run_dir)) for path in written if ".likeness" not in path.parts} == set(own(run_dir))
    for secret in secrets.values():
        assert [path for path in written if secret.encode() in path.read_bytes()] == []
