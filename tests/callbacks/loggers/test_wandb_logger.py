"""The W&B logger beside a service on loopback, and offline: steps are held once, and nothing stops the training."""

import os
import signal
import subprocess
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch.multiprocessing import ProcessExitedException, start_processes

from callbacks.loggers import RunWandbLogger
from callbacks.loggers.wandb_files import last_step, segment_files
from tests.callbacks.two_ranks import on_two_ranks
from tests.wandb_records import finished_records, history, records, summary
from tests.wandb_server import Service, service


def nll(step: int) -> float:
    return 1 + abs(step - 8) / 10  # smallest at step 8


def log(logger: RunWandbLogger, steps: range) -> None:
    for step in steps:
        logger.log_metrics({"val/nll": nll(step), "val/accuracy": float(step), "epoch": 0.0}, step)


def rows(steps: range) -> list[dict[str, float]]:
    """What metrics.csv says of these steps."""
    return [{"step": step, "val/nll": nll(step), "val/accuracy": float(step), "epoch": 0.0} for step in steps]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Makes W&B look for its service at an address. It reads the environment once, hence the teardown."""
    import wandb

    def find(url: str) -> None:
        wandb.teardown()
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)

    yield find
    wandb.teardown()


@pytest.fixture
def online(at: Callable[[str], None]) -> Iterator[Service]:
    with service() as told:
        at(told.url)
        yield told


def test_a_continued_run_has_each_step_once_online(tmp_path: Path, online: Service) -> None:
    first = RunWandbLogger(str(tmp_path), timeout=10)
    log(first, range(10))
    first.finalize("failed")
    second = RunWandbLogger(str(tmp_path), timeout=10)
    second.resume(rows(range(7)))  # the checkpoint stands three steps behind
    log(second, range(7, 14))
    second.finalize("success")

    (run_id,) = online.runs
    found = online.rows(run_id)
    assert [row["_step"] for row in found] == [row["trainer/global_step"] for row in found] == list(range(14))
    assert [row["val/nll"] for row in found] == [nll(step) for step in range(14)]
    assert '"val/nll":{"min":1}' in online.summary[run_id]  # step 8's, which only the first segment sent


def test_rows_that_the_service_never_got_follow(tmp_path: Path, online: Service) -> None:
    first = RunWandbLogger(str(tmp_path), timeout=10)
    log(first, range(4))
    first.finalize("failed")
    second = RunWandbLogger(str(tmp_path), timeout=10)
    second.resume(rows(range(8)))
    second.finalize("success")
    (run_id,) = online.runs
    assert [row["trainer/global_step"] for row in online.rows(run_id)] == list(range(8))


@pytest.mark.filterwarnings("ignore:W&B failed .TimeoutError")
def test_a_service_that_goes_away_costs_a_bounded_time_and_no_row(tmp_path: Path, at: Callable[[str], None]) -> None:
    logger = RunWandbLogger(str(tmp_path), timeout=2)
    with service() as told:
        at(told.url)
        log(logger, range(5))
    log(logger, range(5, 50))
    logger.finalize("success")
    assert last_step(segment_files(tmp_path / "wandb", str(logger.version))) == 49


def test_a_dead_wandb_process_stops_nothing_and_the_next_segment_sends_what_is_missing(tmp_path: Path) -> None:
    in_another_process(partial(log_until_wandb_dies, tmp_path))
    second = RunWandbLogger(str(tmp_path), offline=True)
    second.resume(rows(range(10)))
    second.finalize("success")
    assert steps_of_all_segments(tmp_path) == list(range(10))


def log_until_wandb_dies(directory: Path) -> None:
    logger = RunWandbLogger(str(directory), offline=True)
    log(logger, range(5))
    wandb_core = subprocess.run(["pgrep", "-P", str(os.getpid()), "wandb-core"], capture_output=True, text=True)
    os.kill(int(wandb_core.stdout), signal.SIGKILL)
    with pytest.warns(UserWarning, match="W&B failed"):
        log_and_finish(logger, range(5, 10))


def log_and_finish(logger: RunWandbLogger, steps: range) -> None:
    log(logger, steps)
    logger.finalize("success")


def test_a_killed_process_loses_nothing_once_the_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(ProcessExitedException):
        in_another_process(partial(log_and_die, tmp_path))
    second = RunWandbLogger(str(tmp_path), offline=True)
    second.resume(rows(range(15)))
    log(second, range(15, 20))
    second.finalize("success")
    assert steps_of_all_segments(tmp_path) == list(range(20))


def log_and_die(directory: Path) -> None:
    log(RunWandbLogger(str(directory), offline=True), range(17))
    os.kill(os.getpid(), signal.SIGKILL)


def in_another_process(function: Callable[[], None]) -> None:
    import wandb

    wandb.teardown()  # a forked process would speak to this one's
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside torch's idle threads
        start_processes(lambda rank: function(), nprocs=1, start_method="fork")


def steps_of_all_segments(directory: Path) -> list[int]:
    files = sorted(directory.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)
    finished_records(files[-1])
    return [row["trainer/global_step"] for file in files for row in history(list(records(file)))]


def test_ranks_other_than_zero_start_no_run(tmp_path: Path) -> None:
    import wandb

    def train(rank: int) -> int:
        rank_zero_only.rank = rank  # as Lightning sets it in every process
        logger = RunWandbLogger(str(tmp_path / "run"), offline=True)
        logger.experiment.define_metric("x")  # a user's callback may touch it on every rank
        log(logger, range(3))
        logger.finalize("success")
        return rank

    wandb.teardown()
    on_two_ranks(train, tmp_path)
    (file,) = tmp_path.glob("run/wandb/offline-run-*/*.wandb")
    assert [row["_step"] for row in history(finished_records(file))] == [0, 1, 2]


def test_an_evaluation_fills_the_summary_and_no_curve(tmp_path: Path) -> None:
    logger = RunWandbLogger(str(tmp_path), offline=True)
    logger.begin("test")
    logger.log_metrics({"test/nll": 0.5, "epoch": 0.0}, 0)
    logger.finalize("success")
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    found = finished_records(file)
    assert history(found) == []
    assert summary(found)["test/nll"] == 0.5
    assert "epoch" not in summary(found)


def test_what_comes_late_within_a_step_shares_its_row(tmp_path: Path) -> None:
    """Figures carry the number of steps done, metrics that of the last batch: one less, and logged afterwards."""
    logger = RunWandbLogger(str(tmp_path), offline=True)
    log(logger, range(10))
    logger.log_image("figures/eye", [torch.zeros(3, 4, 4, dtype=torch.uint8)], step=10)
    logger.log_metrics({"similarity/kl/mean": 0.25}, 9)
    logger.log_table("tables/depths", columns=["T", "bpd"], data=[[10, 2.5], ["inf", 2.0], [None, 1.0]], step=10)
    logger.finalize("success")
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    found = history(finished_records(file))
    assert [row["_step"] for row in found] == list(range(11))
    assert found[9]["similarity/kl/mean"] == 0.25
    assert found[10]["figures/eye._type"] == "images/separated"
    assert found[10]["tables/depths._type"] == "table-file"


def test_what_comes_too_late_is_named(tmp_path: Path) -> None:
    logger = RunWandbLogger(str(tmp_path), offline=True)
    log(logger, range(10))
    with pytest.warns(UserWarning, match=r"W&B has step 7 already: odd of step 3 is left out"):
        logger.log_metrics({"odd": 1.0}, 3)
    logger.finalize("success")


def test_another_training_in_the_same_directory_is_another_run(tmp_path: Path) -> None:
    for _ in range(2):
        logger = RunWandbLogger(str(tmp_path), offline=True)
        assert logger.experiment
        logger.begin("fit")
        log(logger, range(3))
        logger.finalize("success")
    with_rows = [file for file in tmp_path.glob("wandb/*run-*/*.wandb") if history(finished_records(file))]
    assert len({file.stem for file in with_rows}) == 2


def test_the_id_is_kept_in_the_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "from-an-agent")
    for _ in range(2):
        logger = RunWandbLogger(str(tmp_path), offline=True)
        logger.log_metrics({"x": 1.0}, 0)
        assert logger.version == (tmp_path / "wandb_id").read_text() == "from-an-agent"
        logger.finalize("success")
        monkeypatch.delenv("WANDB_RUN_ID", raising=False)


def test_group_and_tags_come_from_the_configuration_unless_given(tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "model": {"class_path": "a.Net"},
        "data": {"class_path": "b.Digits"},
        "seed_everything": 1,
    }
    logger = RunWandbLogger(str(tmp_path), offline=True, tags=["mine"])
    logger.describe(config)
    assert logger._wandb_init["group"].startswith("Net-Digits-")
    assert logger._wandb_init["tags"] == ["mine", "Net", "Digits"]
    logger = RunWandbLogger(str(tmp_path), offline=True, group="ours")
    logger.describe(config)
    assert logger._wandb_init["group"] == "ours"


def test_float_images_are_refused(tmp_path: Path) -> None:
    logger = RunWandbLogger(str(tmp_path), offline=True)
    with pytest.raises(TypeError, match=r"image 'samples' must be uint8, got torch.float32"):
        logger.log_image("samples", [torch.rand(3, 4, 4)])


def test_checkpoints_of_an_offline_run_cannot_be_uploaded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="log_model uploads checkpoints, and an offline run uploads nothing"):
        RunWandbLogger(str(tmp_path), offline=True, log_model=True)
