"""TensorBoard, MLflow and trackio beside their own clients, offline: what arrives, and that each step is there once."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only

import callbacks.loggers.continued as continued
from callbacks.loggers import ContinuedLogger, RunMLFlowLogger, RunTensorBoardLogger, RunTrackioLogger
from callbacks.loggers.tensorboard_logger import recorded_steps
from callbacks.run.run_files import mark, own
from tests.callbacks.loggers.logger_records import Records, mlflow_records, tensorboard_records, trackio_records

pytestmark = pytest.mark.filterwarnings("ignore:.*loader strategy is deprecated.*")  # MLflow's use of SQLAlchemy

KINDS = ("tensorboard", "mlflow", "trackio")
CONFIG = {"model": {"class_path": "a.Net", "init_args": {"width": 8, "names": ["x", None]}}, "seed_everything": 3}


class Store:
    """One kind of logger: how one is made in a directory, and how its records are read back."""

    def __init__(self, kind: str, mlflow_uri: str, trackio_dir: Path) -> None:
        self.kind, self._uri, self._folder = kind, mlflow_uri, trackio_dir

    def logger(self, run_dir: Path) -> ContinuedLogger:
        if self.kind == "mlflow":
            return RunMLFlowLogger(str(run_dir), tracking_uri=self._uri)
        return {"tensorboard": RunTensorBoardLogger, "trackio": RunTrackioLogger}[self.kind](str(run_dir))

    def records(self, run_dir: Path, run_id: str = "") -> Records:
        if self.kind == "tensorboard":
            return tensorboard_records(run_dir)
        run_id = run_id or (run_dir / f"{self.kind}_id").read_text()
        if self.kind == "mlflow":
            return mlflow_records(self._uri, run_id)
        return trackio_records(self._folder, "likeness", run_id)


@pytest.fixture(scope="module")
def mlflow_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with MLflow's store, which takes many seconds to make."""
    pytest.importorskip("mlflow")
    run_dir = tmp_path_factory.mktemp("mlflow")
    mark(run_dir)
    logger = RunMLFlowLogger(str(run_dir))
    logger.begin("fit")
    log(logger, range(3))
    logger.finalize("success")
    assert own(run_dir) == sorted(files(run_dir))
    return run_dir


@pytest.fixture(scope="module")
def trackio_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """trackio reads the name of its folder once in a process."""
    pytest.importorskip("trackio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
        from trackio.utils import TRACKIO_DIR

        patch.setenv("TRACKIO_DIR", str(TRACKIO_DIR))
        yield TRACKIO_DIR


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Store:
    pytest.importorskip(request.param)
    uri = f"sqlite:///{request.getfixturevalue('mlflow_dir')}/mlflow/mlflow.db" if request.param == "mlflow" else ""
    folder = request.getfixturevalue("trackio_dir") if request.param == "trackio" else Path()
    return Store(request.param, uri, folder)


def nll(step: int) -> float:
    return 1 + abs(step - 8) / 8


def log(logger: ContinuedLogger, steps: range) -> None:
    """As a training with a validation every third step does: two calls, and figures that are one step ahead."""
    for step in steps:
        logger.log_metrics({"train/loss": nll(step), "epoch": 0.0}, step)
        if step % 3 == 2:
            logger.log_image("figures/eye", [picture(step + 1)], step + 1)
            logger.log_table("tables/points", ["T", "bpd"], [[step, 2.5], ["inf", None]], step + 1)
            logger.log_metrics({"val/nll": nll(step), "epoch": 0.0}, step)


def rows(steps: range) -> list[dict[str, float]]:
    """What metrics.csv says of these steps."""
    return [
        {"step": float(step), "train/loss": nll(step), "epoch": 0.0} | ({"val/nll": nll(step)} if step % 3 == 2 else {})
        for step in steps
    ]


def picture(step: int) -> np.ndarray:
    return np.random.default_rng(step).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def assert_each_step_once(found: Records, steps: range) -> None:
    assert max(Counter(place for place, _ in found.scalars).values()) == 1
    expected = {(key, int(row["step"])): row[key] for row in rows(steps) for key in row.keys() - {"step"}}
    assert dict(found.scalars) == expected
    for key in ("train/loss", "val/nll"):
        assert found.steps(key) == sorted(found.steps(key))
    figures = [step + 1 for step in steps if step % 3 == 2]
    assert sorted(found.images) == [("figures/eye", step) for step in figures]
    assert sorted(found.tables) == [("tables/points", step) for step in figures]
    for (_, step), image in found.images.items():
        np.testing.assert_array_equal(image, picture(step))


def test_numbers_pictures_tables_and_the_configuration_arrive(tmp_path: Path, store: Store) -> None:
    logger = store.logger(tmp_path)
    logger.begin("fit")
    logger.log_hyperparams(CONFIG)
    log(logger, range(7))
    logger.finalize("success")
    found = store.records(tmp_path)
    assert_each_step_once(found, range(7))
    assert found.config == CONFIG
    rows_of_table = found.tables["tables/points", 3]
    assert [[str(cell or "") for cell in row] for row in rows_of_table] == [["2", "2.5"], ["inf", ""]]


@pytest.mark.parametrize(("checkpoint", "crash"), [(7, 10), (6, 6), (6, 9)])
def test_a_run_that_was_cut_off_goes_on_with_each_step_once(
    tmp_path: Path, store: Store, checkpoint: int, crash: int
) -> None:
    log(store.logger(tmp_path), range(crash))  # and no finalize: the process is killed
    second = store.logger(tmp_path)
    second.resume(rows(range(checkpoint)), checkpoint)
    second.log_hyperparams(CONFIG)
    log(second, range(checkpoint, 12))
    second.finalize("success")
    found = store.records(tmp_path)
    assert_each_step_once(found, range(12))
    assert found.config == CONFIG


def test_what_a_kill_took_and_what_is_older_than_the_logger_follows(tmp_path: Path, store: Store) -> None:
    first = store.logger(tmp_path)
    first.log_metrics({"train/loss": nll(0), "epoch": 0.0}, 0)
    first.finalize("failed")
    second = store.logger(tmp_path)
    second.resume(rows(range(8)), 8)
    second.finalize("success")
    expected = [(key, row["step"]) for row in rows(range(8)) for key in row.keys() - {"step"}]
    assert sorted(place for place, _ in store.records(tmp_path).scalars) == sorted(expected)


def test_another_training_in_the_same_directory_is_another_record(tmp_path: Path, store: Store) -> None:
    logger = store.logger(tmp_path)
    logger.begin("fit")
    log(logger, range(5))
    logger.finalize("success")
    logger.begin("fit")
    log(logger, range(3))
    logger.finalize("success")
    assert_each_step_once(store.records(tmp_path), range(3))


def test_evaluations_are_no_part_of_the_curves(tmp_path: Path, store: Store) -> None:
    logger = store.logger(tmp_path)
    log(logger, range(6))
    logger.finalize("success")
    for value in (0.5, 0.25):
        for stage in ("validate", "test"):
            evaluation = store.logger(tmp_path)
            evaluation.begin(stage)
            key = {"validate": "val/nll", "test": "test/nll"}[stage]
            evaluation.log_metrics({key: value, "epoch": 0.0}, 0)
            evaluation.finalize("success")
    found = store.records(tmp_path)
    assert found.steps("val/nll") == [2, 5]
    values = dict(found.scalars)
    for key in ("validate/val/nll", "test/nll"):
        assert [values[key, step] for step in found.steps(key)] == [0.5, 0.25]


def test_ranks_other_than_zero_write_nothing(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = store.logger(tmp_path)
    logger.begin("fit")
    logger.experiment.anything()  # a user's callback may touch it on every rank
    logger.log_hyperparams(CONFIG)
    log(logger, range(3))
    logger.resume(rows(range(3)), 3)
    logger.finalize("success")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_named(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continued, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=rf'this logger needs {store.kind}: pip install -e "\.\[{store.kind}\]"'):
        store.logger(tmp_path).log_metrics({"x": 1.0}, 0)


def test_float_images_are_refused_and_tensors_taken(tmp_path: Path, store: Store) -> None:
    logger = store.logger(tmp_path)
    with pytest.raises(TypeError, match=r"image 'samples' must be uint8, got float32"):
        logger.log_image("samples", [torch.rand(3, 4, 4)], 1)
    both = [torch.from_numpy(picture(seed)).movedim(-1, 0) for seed in (1, 2)]
    logger.log_image("samples", both, 1)
    logger.finalize("success")
    found = store.records(tmp_path).images
    assert found.keys() == {("samples/0", 1), ("samples/1", 1)}
    np.testing.assert_array_equal(found["samples/1", 1], picture(2))


def test_a_store_that_fails_ends_no_training_and_is_filled_later(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = store.logger(tmp_path)
    log(logger, range(3))
    with monkeypatch.context() as broken:
        broken.setattr(type(logger), "_write", fail)
        with pytest.warns(UserWarning, match=r"Logger failed \(OSError: no space left\): metrics\.csv has what"):
            log(logger, range(3, 5))
    log(logger, range(5, 6))
    logger.finalize("failed")
    second = store.logger(tmp_path)
    second.resume(rows(range(6)), 6)
    second.finalize("success")
    assert store.records(tmp_path).steps("train/loss") == list(range(6))


def fail(*arguments: Any) -> None:
    raise OSError("no space left\non the device")


def test_tensorboard_shows_the_new_values_of_a_run_that_went_another_way(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    first = RunTensorBoardLogger(str(tmp_path))
    log(first, range(9))
    second = RunTensorBoardLogger(str(tmp_path))
    second.resume(rows(range(4)), 4)
    for step in (5, 6):
        second.log_metrics({"train/loss": -float(step)}, step)
    second.finalize("success")
    values = dict(tensorboard_records(tmp_path).scalars)
    assert {step: value for (key, step), value in values.items() if key == "train/loss"} == {
        **{step: nll(step) for step in range(5)},  # step 4 was the first behind the checkpoint, and stays
        5: -5.0,
        6: -6.0,
    }


def test_an_event_file_that_was_cut_short_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    first = RunTensorBoardLogger(str(tmp_path))
    log(first, range(9))
    (file,) = tmp_path.glob("tensorboard/*")
    file.write_bytes(file.read_bytes()[:-7])
    assert recorded_steps([file])["train/loss"] == list(range(9))
    assert recorded_steps([file])["val/nll"] == [2, 5]
    second = RunTensorBoardLogger(str(tmp_path))
    second.resume(rows(range(9)), 9)
    second.finalize("success")
    assert_each_step_once(tensorboard_records(tmp_path), range(9))


def test_what_is_written_into_a_run_directory_is_the_runs(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    mark(tmp_path)
    logger = RunTensorBoardLogger(str(tmp_path))
    log(logger, range(3))
    logger.finalize("success")
    log(logger, range(3, 6))
    logger.finalize("success")
    assert own(tmp_path) == sorted(files(tmp_path))


def files(run_dir: Path) -> list[str]:
    found = (str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if path.is_file())
    return [name for name in found if not name.startswith(".likeness")]


def test_a_store_that_somebody_else_made_stays_theirs(tmp_path: Path, mlflow_dir: Path) -> None:
    mark(tmp_path)
    (tmp_path / "mlflow").mkdir()
    with (
        closing(sqlite3.connect(mlflow_dir / "mlflow" / "mlflow.db")) as source,
        closing(sqlite3.connect(tmp_path / "mlflow" / "mlflow.db")) as target,
    ):
        source.backup(target)
    logger = RunMLFlowLogger(str(tmp_path))
    with pytest.warns(UserWarning, match="MLflow has the files of this run in"):
        log(logger, range(3))
    logger.finalize("success")
    assert "mlflow/mlflow.db" not in own(tmp_path)
    assert "mlflow_id" in own(tmp_path)


def test_a_configuration_that_comes_in_parts_is_one(tmp_path: Path, store: Store) -> None:
    """Lightning logs the arguments of a module before the command logs the whole."""
    logger = store.logger(tmp_path)
    logger.log_hyperparams({"seed_everything": 2})
    logger.log_hyperparams({**CONFIG, "where": tmp_path})
    logger.log_metrics({"x": 1.0}, 0)
    logger.finalize("success")
    assert store.records(tmp_path).config["where"] == str(tmp_path)


def test_a_run_that_goes_on_with_other_settings_shows_them(tmp_path: Path, store: Store) -> None:
    changed = {"model": {"class_path": "a.Net", "init_args": {"width": 16, "depth": 2}}, "seed_everything": 3}
    for config, steps in ((CONFIG, range(6)), (changed, range(6, 9))):
        logger = store.logger(tmp_path)
        logger.resume(rows(range(steps.start)), steps.start)
        logger.log_hyperparams({"width": 8})  # Lightning logs the arguments of the module first
        logger.log_hyperparams(config)
        log(logger, steps)
        logger.finalize("success")
    found = store.records(tmp_path).config
    assert {key: found[key] for key in changed} == changed


def test_mlflow_tags_what_its_parameters_cannot_take(tmp_path: Path, mlflow_dir: Path) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{mlflow_dir}/mlflow/mlflow.db"
    seen = []
    for arguments in ({"width": 8, "depth": 1}, {"width": 16, "bias": True}, {"width": 8, "depth": 1, "bias": True}):
        logger = RunMLFlowLogger(str(tmp_path), tracking_uri=uri)
        logger.resume([], 0)
        logger.log_hyperparams({"seed": 3})
        logger.log_hyperparams({"model": arguments})
        logger.finalize("success")
        run = MlflowClient(uri).get_run((tmp_path / "mlflow_id").read_text())
        seen.append({key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")})
    assert run.data.params == {"seed": "3", "model/width": "8", "model/depth": "1", "model/bias": "True"}
    assert seen == [
        {},
        {"model/width": "16", "model/depth": "absent"},
        {"model/width": "8", "model/depth": "1"},
    ]
