"""The training command: what LightningCLI does by default and must not do here."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from callbacks.run import run_files
from callbacks.run.segments import read_segments
from datamodules import Digits
from lightning_modules import SoftmaxClassifier
from lightning_modules.checkpoints import load_module
from scripts.cli.entry_point import UsageError, run_command
from scripts.cli.lightning_cli import CONFIGS, FOLLOWED, compose
from scripts.train import main
from tests.scripts.training import Training, snapshot


def test_a_run_directory_holds_everything(train: Training) -> None:
    status, errors = train("fit")
    assert status == 0, errors
    assert errors.splitlines()[0] == f"likeness: run directory {train.run_dir}"
    assert {path.name for path in train.run_dir.iterdir()} == {
        *("checkpoints", "config.yaml", "metrics.csv", "segments.json", "weights.safetensors", ".likeness")
    }


def test_the_saved_configuration_repeats_the_run(train: Training, tmp_path: Path, root: Path) -> None:
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


def test_the_configuration_beats_the_checkpoint(train: Training) -> None:
    assert train("fit", "--model.optimizer.class_path", "Adam", "--model.optimizer.init_args.lr", "0.003")[0] == 0
    more = ("--ckpt_path", "last", "--trainer.max_epochs", "2", "--model.optimizer.class_path", "Adam")
    assert train("fit", *more, "--model.optimizer.init_args.lr", "0.5", "--allow_changes")[0] == 0
    assert train.config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.5
    assert train.checkpoint["hyper_parameters"]["optimizer"]["init_args"]["lr"] == 0.5
    assert train.checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] == 0.5


def test_evaluation_leaves_the_run_as_it_was_and_takes_its_last_weights(trained: Training) -> None:
    before = {path.name: path.read_bytes() for path in trained.run_dir.iterdir() if path.is_file()}
    status, errors = trained("test")
    assert status == 0, errors
    assert all((trained.run_dir / name).read_bytes() == content for name, content in before.items())

    model = SoftmaxClassifier.load_from_checkpoint(trained.run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    data = Digits()
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    with torch.no_grad(), (trained.run_dir / "test_metrics.csv").open(newline="") as file:
        assert len(batch.y) == 360
        assert float(next(csv.DictReader(file))["test/nll"]) == pytest.approx(model.eval().loss(batch).item(), rel=1e-6)


def test_the_seed_is_a_number_and_reaches_model_and_data(trained: Training) -> None:
    assert trained.config["seed_everything"] == 0
    assert trained.checkpoint["hyper_parameters"]["seed"] == 0
    assert trained("fit", "--overwrite", "true", "--seed_everything", "7")[0] == 0
    assert trained.checkpoint["hyper_parameters"]["seed"] == 7
    assert trained.checkpoint["Digits"]["order"]["seeds"] == [7]


def test_values_are_interpolated_across_files_and_lists_append(train: Training, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("name", [*FOLLOWED, "model.init_args.seed"])
def test_an_option_that_another_one_gives_is_refused(name: str, tmp_path: Path) -> None:
    other = FOLLOWED[name.replace(".init_args.", ".")]
    with pytest.raises(UsageError, match=rf"^--{name} follows --{other}"):
        compose(["fit", "--config", "configs/experiment/demo.yaml", f"--{name}=3"])
    content: object = 3
    for key in reversed(name.split(".")):
        content = {key: content}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(content))
    for given in (["--config", str(file)], [f"--config={file}"]):
        with pytest.raises(UsageError, match=rf"^{file}: {name} follows --{other}"):
            compose(["fit", *given])


def test_what_the_data_say_of_the_inputs_is_not_given_otherwise(train: Training, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: {init_args: {num_classes: 4}}")
    for given, where in (
        (("--config", str(file)), f"{file}: model.init_args.num_classes"),
        (("--model.num_classes", "4"), "--model.num_classes"),
    ):
        status, errors = train("fit", *given)
        assert status == 2, errors
        assert f"error: {where} follows the data: datamodules.Digits says it" in errors


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
def test_bad_input_is_one_line_that_names_it(
    train: Training, options: tuple[str, ...], status: int, named: str
) -> None:
    code, errors = train("fit", *options)
    assert code == status, errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith("likeness: error: ")
    assert named in last
    assert "Traceback" not in errors


def test_a_started_run_is_refused_and_untouched(trained: Training) -> None:
    before = (trained.run_dir / "metrics.csv").read_bytes()
    code, errors = trained("fit")
    assert code == 1
    assert "already holds a run" in errors
    assert (trained.run_dir / "metrics.csv").read_bytes() == before


def test_a_checkpoint_of_another_class_is_refused(trained: Training) -> None:
    code, errors = trained("fit", "--ckpt_path", "last", "--model", "lightning_modules.SiblingClassifiers")
    assert code == 1
    assert "holds a lightning_modules.SoftmaxClassifier" in errors


def test_labels_that_do_not_fit_the_model_are_named(trained: Training) -> None:
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
    code, errors = trained("fit", *options)
    assert code == 1
    assert "size mismatch" in errors


def test_a_changed_configuration_is_listed_and_needs_permission(trained: Training) -> None:
    changed = ("--ckpt_path", "last", "--model.dim", "3", "--data.batch_size", "32", "--trainer.max_epochs", "2")
    code, errors = trained("fit", *changed)
    assert code == 2
    assert "data.init_args.batch_size: 32 (was 64); model.init_args.dim: 3 (was 2)" in errors
    assert "max_epochs" not in errors
    assert trained.config["model"]["init_args"]["dim"] == 2
    code, errors = trained("fit", *changed, "--allow_changes")
    assert "size mismatch" in errors


def test_the_same_line_starts_a_run_and_continues_it(train: Training) -> None:
    line = ("--auto_resume", "--checkpoint.every_n_train_steps", "1", "--trainer.max_steps")
    assert train("fit", *line, "1")[0] == 0
    first = (train.run_dir / "metrics.csv").read_text()
    assert train("fit", *line, "2")[0] == 0
    assert (train.run_dir / "metrics.csv").read_text().startswith(first.splitlines()[0])
    assert train("fit", *line, "2")[0] == 0  # nothing is left to do, which is no segment
    segments = read_segments(train.run_dir)
    assert [(segment["first_step"], segment["last_step"]) for segment in segments] == [(0, 1), (1, 2)]
    assert {segment["why"] for segment in segments} == {"finished"}


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_anew(train: Training) -> None:
    run_files.mark(train.run_dir)
    run_files.note(train.run_dir / "metrics.csv").write_text("step\n17\n")
    assert train("fit", "--auto_resume")[0] == 0
    assert "17" not in (train.run_dir / "metrics.csv").read_text().splitlines()


@pytest.mark.parametrize("option", ["--auto_resume", "--overwrite"])
def test_a_directory_of_another_project_is_left_alone(train: Training, option: str) -> None:
    for name in ("figures/plot.png", "checkpoints/last.ckpt", "config.yaml", "metrics.csv"):
        (train.run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (train.run_dir / name).write_text("mine")
    before = snapshot(train.run_dir)
    code, errors = train("fit", option)
    assert code == 1
    assert "no run's: checkpoints/last.ckpt, config.yaml, figures/plot.png, metrics.csv" in errors
    assert snapshot(train.run_dir) == before


def test_a_run_whose_checkpoints_are_not_mounted_is_not_begun_anew(train: Training) -> None:
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
def test_an_evaluation_of_no_run_leaves_no_trace(train: Training, subcommand: str) -> None:
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
    train: Training, given: tuple[str, str], then: tuple[str, str], steps: int, validations: int
) -> None:
    code, errors = train("fit", *given, *then)
    assert code == 0, errors
    assert read_segments(train.run_dir)[-1]["last_step"] == steps
    with (train.run_dir / "metrics.csv").open(newline="") as file:
        assert len([row for row in csv.DictReader(file) if row["val/nll"]]) == validations


def test_an_empty_run_dir_is_refused(train: Training) -> None:
    code, errors = train("fit", "--run_dir", "")
    assert code == 2
    assert "--run_dir is empty" in errors


def test_the_home_directory_is_meant_by_a_tilde_everywhere(
    train: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def test_modes_of_files_follow_the_umask(train: Training) -> None:
    before = os.umask(0o027)
    try:
        assert train("fit", "--config", "configs/logger/wandb_offline.yaml")[0] == 0
        assert train("predict")[0] == 0
    finally:
        os.umask(before)
    ours = [path for path in train.run_dir.rglob("*") if path.is_file() and "wandb" not in path.parts]
    assert len(ours) > 8
    assert {str(path): oct(path.stat().st_mode & 0o777) for path in ours} == {str(path): "0o640" for path in ours}


def test_exported_weights_are_evaluated_and_not_trained(train: Training) -> None:
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


def test_predictions_are_a_file(trained: Training) -> None:
    code, errors = trained("predict")
    assert code == 0, errors
    model, data = load_module(trained.run_dir).eval(), Digits()
    data.setup("predict")
    batch = next(iter(data.predict_dataloader()))
    with np.load(trained.run_dir / "predictions.npz", allow_pickle=False) as found, torch.no_grad():
        assert set(found) == {"id", "labels", "log_probs", "representations"}
        np.testing.assert_array_equal(found["id"], np.arange(360))
        np.testing.assert_array_equal(found["labels"], batch.y)
        np.testing.assert_allclose(found["log_probs"], model(batch.x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("other", [("--ckpt_path", "last"), ("--overwrite",)])
def test_auto_resume_leaves_nothing_else_to_say(train: Training, other: tuple[str, ...]) -> None:
    code, errors = train("fit", "--auto_resume", *other)
    assert code == 2
    assert f"{other[0]} " in errors


def test_a_damaged_last_checkpoint_is_named_and_the_one_before_continues(train: Training) -> None:
    assert train("fit", "--checkpoint.every_n_train_steps", "1")[0] == 0
    last = train.run_dir / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    code, errors = train("fit", "--ckpt_path", "last", "--trainer.max_epochs", "2")
    assert code == 0, errors
    assert "last.ckpt is refused: it is truncated" in errors
    assert "continuing from" in errors
    assert read_segments(train.run_dir)[-1]["first_step"] == 1


def test_the_time_budget_stops_with_its_own_status(train: Training) -> None:
    code, errors = train("fit", "--stop_after", "0s", "--trainer.max_epochs", "50")
    assert code == 75, errors
    assert "stopped by the time budget after step 1" in errors
    assert read_segments(train.run_dir)[-1]["why"] == "stopped by the time budget"
    assert train("fit", "--auto_resume")[0] == 0
    code, errors = train("fit", "--overwrite", "--stop_after", "soon")
    assert code != 0
    assert "stop_after must be a time like 3h50m, 90s or 1d12h, got 'soon'" in errors


def test_the_exported_weights_are_the_model(train: Training) -> None:
    assert train("fit", "--config", "configs/callbacks/ema.yaml")[0] == 0
    exported = load_module(train.run_dir / "weights.safetensors")
    kept = load_module(train.run_dir)
    assert type(exported) is type(kept) is SoftmaxClassifier
    assert exported.hparams == kept.hparams
    for name, value in kept.state_dict().items():
        assert torch.equal(exported.state_dict()[name], value), name


def test_torchrun_without_ddp_is_refused(train: Training, monkeypatch: pytest.MonkeyPatch) -> None:
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
