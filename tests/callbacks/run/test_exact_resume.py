"""Settings of the optimiser that were changed reach the parameters that they are of, and no others."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy

from callbacks.run.exact_resume import ExactResume
from datamodules.base import ResumableLoader
from lightning_modules import VariationalDiffusion
from lightning_modules.optimization import DiffusionAdamW, LinearWarmup
from likeness.diffusion import LearnedRatio
from tests.lightning_modules.points import trainer
from tests.lightning_modules.tiny_diffusion import batch, vdm

WARMUP = partial(LinearWarmup, steps=100)


def module(lr: float = 2e-4, weight_decay: float = 0.01, ratio_lr: float = 7e-3, scheduler: Any = WARMUP) -> Any:
    """Its parameters are in three groups: weights that decay, biases, and a ratio with a rate of its own."""
    optimizer = partial(DiffusionAdamW, lr=lr, weight_decay=weight_decay)
    return vdm(num_steps=4, ratio=LearnedRatio, optimizer=optimizer, scheduler=scheduler, ratio_lr=ratio_lr)


class LoadsLate(SingleDeviceStrategy):
    """Reads a checkpoint when there are optimisers, and gives them what is theirs by itself, as sharding does."""

    restore_checkpoint_after_setup = True  # type: ignore[assignment]

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        content = super().load_checkpoint(checkpoint_path, weights_only)
        for optimizer, state in zip(self.optimizers, content["optimizer_states"], strict=True):
            optimizer.load_state_dict(state)
        return content

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        pass


def trained(
    folder: Path, model: VariationalDiffusion, steps: int, path: Path | None = None, strategy: Any = "auto"
) -> list[dict[str, Any]]:
    """The groups of the optimiser after so many steps in all; a checkpoint is left in ``folder``."""
    options = {"default_root_dir": folder, "callbacks": [ExactResume()], "limit_val_batches": 0}
    run = trainer(max_steps=steps, strategy=strategy, **options)
    loader: Any = ResumableLoader([batch(4)] * 4, batch_size=None)  # type: ignore[arg-type]
    run.fit(model, loader, loader, ckpt_path=path)
    run.save_checkpoint(folder / "last.ckpt")
    return run.optimizers[0].param_groups


def settings(groups: list[dict[str, Any]], *names: str) -> list[tuple[float, ...]]:
    return [tuple(group[name] for name in names) for group in groups]


@pytest.mark.parametrize("late", [False, True])
def test_changed_settings_leave_groups_with_their_own_alone(tmp_path: Path, late: bool) -> None:
    trained(tmp_path, module(), 2)
    strategy = LoadsLate("cpu") if late else "auto"
    groups = trained(tmp_path, module(lr=1e-3, weight_decay=0.05), 3, tmp_path / "last.ckpt", strategy)
    assert settings(groups, "initial_lr", "weight_decay") == [(1e-3, 0.05), (1e-3, 0.0), (7e-3, 0.0)]
    # Step 3 of 100 on the way up.
    assert [group["lr"] for group in groups] == pytest.approx([3e-5, 3e-5, 2.1e-4])
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert state["lr_schedulers"][0]["base_lrs"] == [1e-3, 1e-3, 7e-3]


def test_a_rate_of_its_own_is_changed_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for scheduler in (WARMUP, None):
        trained(tmp_path, module(scheduler=scheduler), 2)
        groups = trained(tmp_path, module(ratio_lr=3e-3, scheduler=scheduler), 3, tmp_path / "last.ckpt")
        factor = 1 if scheduler is None else 0.03
        assert [group["lr"] for group in groups] == pytest.approx([2e-4 * factor, 2e-4 * factor, 3e-3 * factor])
        assert "ratio_lr: 0.007 in the checkpoint, 0.003 asked for and used" in caplog.text


def test_a_rate_that_was_lowered_without_a_schedule_keeps_its_factor(tmp_path: Path) -> None:
    """As ReduceLROnPlateau does it, which leaves no trace of the rate that it began with."""
    trained(tmp_path, module(scheduler=None), 2)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    for group in content["optimizer_states"][0]["param_groups"]:
        group["lr"] /= 10
    torch.save(content, tmp_path / "lowered.ckpt")
    groups = trained(tmp_path, module(lr=1e-3, scheduler=None), 3, tmp_path / "lowered.ckpt")
    assert [group["lr"] for group in groups] == pytest.approx([1e-4, 1e-4, 7e-4])


def test_a_part_that_had_no_rate_of_its_own_gets_one(tmp_path: Path) -> None:
    trained(tmp_path, module(scheduler=None), 2)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    content["hyper_parameters"]["ratio_lr"] = None
    torch.save(content, tmp_path / "without.ckpt")
    groups = trained(tmp_path, module(ratio_lr=3e-3, scheduler=None), 3, tmp_path / "without.ckpt")
    assert groups[-1]["lr"] == pytest.approx(3e-3)


def test_settings_that_stay_are_restored_whatever_a_schedule_made_of_them(tmp_path: Path) -> None:
    """As OneCycleLR moves betas: they are the checkpoint's, though the configuration asks for others to begin with."""
    trained(tmp_path, module(), 2)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    content["optimizer_states"][0]["param_groups"][0]["betas"] = (0.85, 0.99)
    torch.save(content, tmp_path / "moved.ckpt")
    groups = trained(tmp_path, module(weight_decay=0.05), 3, tmp_path / "moved.ckpt")
    assert [group["betas"] for group in groups] == [(0.85, 0.99), (0.9, 0.99), (0.9, 0.99)]
