"""Siblings divided among ranks are the siblings that one process trains, to the last bit."""

from pathlib import Path

import pytest
import torch

from tests.integration.commands import QUIET, command
from tests.integration.test_torchrun import TWO

OPTIONS = {
    "stacked": ("--model.init_args.num_members", "4"),
    "one_after_another": (
        *("--model.init_args.num_members", "2", "--model.init_args.shared_order", "true"),
        *("--model.init_args.embedding", "likeness.networks.CNN", "--trainer.gradient_clip_val", "null"),
    ),
}


@pytest.mark.parametrize("kind", ["stacked", pytest.param("one_after_another", marks=pytest.mark.long)])
def test_two_ranks_train_what_one_trains(kind: str, tmp_path: Path) -> None:
    base = (
        *("--config", "tests/integration/siblings.yaml", "--model.init_args.spread_over_ranks", "true", *OPTIONS[kind]),
        *(*QUIET, "--trainer.accelerator", "cpu", "--trainer.max_steps", "6", "--trainer.num_sanity_val_steps", "0"),
    )
    weights = []
    for name, more, launcher in (
        ("one", (), ()),
        ("two", ("--trainer.strategy", "ddp_find_unused_parameters_true"), TWO),
    ):
        ended = command("train", "fit", *base, *more, "--run_dir", str(tmp_path / name), launcher=launcher)
        assert ended.status == 0, ended.output
        content = torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        weights.append({**content["state_dict"], "moments": content["optimizer_states"][0]["state"][0]["exp_avg_sq"]})
    one, two = weights
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_members_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    base = ("--config", "tests/integration/siblings.yaml", "--model.init_args.spread_over_ranks", "true", *QUIET)
    ended = command("train", "fit", *base, "--trainer.accelerator", "cpu", "--run_dir", str(tmp_path), launcher=TWO)
    assert ended.status != 0
    assert "3 members cannot be spread evenly over 2 ranks" in ended.output
