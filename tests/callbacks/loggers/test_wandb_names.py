"""What metric keys and configurations say: which direction is better, and which runs differ in nothing but seeds."""

from typing import Any

import pytest

from callbacks.loggers.wandb_logger import goal
from callbacks.run.seed_groups import class_names, seed_group


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("train/loss", "min"),
        ("val/nll/3", "min"),
        ("elbo/train/bpd", "min"),
        ("val/accuracy", "max"),
        ("val/spearman", "max"),
        ("val/bpd_draw_se", None),
        ("similarity/kl/mean", None),
        ("hubness/middle/k_skewness", None),
        ("loss", None),
        ("epoch", None),
    ],
)
def test_losses_are_minimised_and_accuracies_maximised(key: str, expected: str | None) -> None:
    assert goal(key) == expected


def config(**changed: Any) -> dict[str, Any]:
    return {
        "seed_everything": 0,
        "run_dir": "runs/0",
        "model": {"class_path": "a.b.Net", "init_args": {"width": 16, "seed": 0}},
        "data": {"class_path": "c.Digits", "init_args": {"seed": 0}},
        "trainer": {"max_epochs": 3, "logger": [{"class_path": "x.CSV"}]},
    } | changed


def test_seeds_directories_and_loggers_do_not_part_a_group() -> None:
    other = config(
        seed_everything=7,
        run_dir="runs/7",
        model={"class_path": "a.b.Net", "init_args": {"width": 16, "seed": 7}},
        trainer={"max_epochs": 3, "logger": []},
    )
    assert seed_group(other) == seed_group(config())
    assert seed_group(config()).startswith("Net-Digits-")


@pytest.mark.parametrize(
    "changed",
    [
        {"model": {"class_path": "a.b.Net", "init_args": {"width": 32}}},
        {"data": {"class_path": "c.Digits", "init_args": {"batch_size": 8}}},
        {"trainer": {"max_epochs": 4}},
    ],
    ids=["model", "data", "trainer"],
)
def test_everything_else_does(changed: dict[str, Any]) -> None:
    assert seed_group(config(**changed)) != seed_group(config())


def test_a_configuration_without_data_has_one_name() -> None:
    assert class_names({"model": {"class_path": "a.Net"}, "data": None}) == ["Net"]
