"""Options that replace one another, and what differs between two configurations."""

from pathlib import Path

import pytest
import yaml

from scripts.cli.run_configuration import RIVALS, differences, portable, replaced

EPOCHS, STEPS, TIME = RIVALS[0]


def config(folder: Path, **content: object) -> tuple[str, str]:
    path = folder / f"{len(list(folder.iterdir()))}.yaml"
    path.write_text(yaml.safe_dump(content))
    return "--config", str(path)


def test_what_is_given_last_takes_back_what_says_the_same_in_other_units(tmp_path: Path) -> None:
    every_epoch = config(tmp_path, checkpoint={"every_n_epochs": 50}, trainer={"max_epochs": 200})
    every_step = config(tmp_path, checkpoint={"every_n_train_steps": 7})
    assert replaced([*every_epoch, f"--{STEPS}", "7"]) == [f"--{EPOCHS}=null"]
    assert replaced([*every_epoch, f"--{STEPS}=7"]) == [f"--{EPOCHS}=null"]
    assert replaced([*every_epoch, f"--{TIME}", "00:00:30:00"]) == [f"--{EPOCHS}=null"]
    assert replaced([*every_epoch, *every_step]) == [f"--{EPOCHS}=null"]
    assert replaced([*every_step, f"--config={every_epoch[1]}"]) == [f"--{STEPS}=null"]
    assert replaced([f"--{TIME}", "00:00:30:00", f"--{STEPS}", "7", *every_epoch]) == [
        *(f"--{STEPS}=null", f"--{TIME}=null")
    ]
    assert replaced([*every_epoch, "--trainer.max_steps", "10"]) == ["--trainer.max_epochs=-1"]
    assert replaced(["--trainer.max_steps", "10", *every_epoch]) == ["--trainer.max_steps=-1"]
    assert replaced([*every_epoch, "--checkpoint", '{"every_n_train_steps": 3}']) == [f"--{EPOCHS}=null"]


def test_a_value_that_says_nothing_takes_nothing_back(tmp_path: Path) -> None:
    saved = config(
        tmp_path,
        checkpoint={"every_n_epochs": 50, "every_n_train_steps": None, "train_time_interval": None},
        trainer={"max_epochs": 200, "max_steps": -1, "val_check_interval": 1.0, "check_val_every_n_epoch": 5},
    )
    assert replaced(saved) == []
    assert replaced([*saved, f"--{STEPS}", "null", "--trainer.max_steps", "-1", "--auto_resume"]) == []
    assert replaced([*saved, f"--{EPOCHS}", "3", "--trainer.max_epochs", "4"]) == []


def test_what_one_file_says_together_holds_together(tmp_path: Path) -> None:
    both = config(tmp_path, trainer={"max_epochs": 2, "max_steps": 30})
    assert replaced(both) == []
    assert replaced([*both, "--trainer.max_epochs", "3"]) == ["--trainer.max_steps=-1"]


@pytest.mark.parametrize(("interval", "epochs"), [("10", "null"), ("1", "null"), ("0.5", "1"), ("00:00:10:00", "null")])
def test_an_interval_between_validations_holds_in_every_epoch(tmp_path: Path, interval: str, epochs: str) -> None:
    rarely = config(tmp_path, trainer={"check_val_every_n_epoch": 5})
    assert replaced([*rarely, "--trainer.val_check_interval", interval]) == [
        f"--trainer.check_val_every_n_epoch={epochs}"
    ]
    assert replaced(["--trainer.val_check_interval", interval, *rarely]) == ["--trainer.val_check_interval=1.0"]
    one = ["--trainer.val_check_interval", interval, "--trainer.check_val_every_n_epoch", "null"]
    assert replaced([*rarely, *one]) == [f"--trainer.check_val_every_n_epoch={epochs}"]


def test_a_file_that_cannot_be_read_is_the_parsers_to_refuse(tmp_path: Path) -> None:
    (tmp_path / "not.yaml").write_bytes(b"\xff\xfe: [")
    assert replaced(["--config", str(tmp_path / "not.yaml"), "--config", "nowhere.yaml", "--config"]) == []


def test_paths_into_the_run_directory_are_kept_relative() -> None:
    content = {"run_dir": "runs/a", "callbacks": [{"dirpath": "runs/a/checkpoints"}, "runs/ab", "runs/a"]}
    assert portable(content, "runs/a") == {
        "run_dir": "runs/a",
        "callbacks": [{"dirpath": "${run_dir}/checkpoints"}, "runs/ab", "${run_dir}"],
    }


def test_differences_name_the_leaves() -> None:
    before = {"a": {"b": 1, "c": [1, {"d": 2}]}, "e": 1}
    now = {"a": {"b": 2, "c": [1, {"d": 3}]}, "f": None}
    assert list(differences(before, now)) == [
        *("a.b: 2 (was 1)", "a.c[1].d: 3 (was 2)", "e: absent (was 1)", "f: None (was absent)")
    ]


def test_an_argument_that_a_class_has_got_since_is_no_difference_at_its_default() -> None:
    """Also one of a base class, to which the class hands its options; at another value it is one."""

    def of(**arguments: object) -> dict[str, object]:
        return {"model": {"class_path": "lightning_modules.DiffEnc", "init_args": {"levels": 17, **arguments}}}

    assert list(differences(of(), of(lean=False, volatility_lr=1e-3, volatility=None))) == []
    found = list(differences(of(), of(lean=True, volatility_lr=2e-3)))
    assert found == [
        "model.init_args.lean: True (was absent)",
        "model.init_args.volatility_lr: 0.002 (was absent)",
    ]
    assert list(differences(of(lean=True), of(lean=False))) == ["model.init_args.lean: False (was True)"]
