"""A poisoned state ends the run and reaches no checkpoint."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from callbacks.stop_on_nonfinite import NonFiniteError, StopOnNonFinite

TRAINER: Any = SimpleNamespace(global_step=7)


def module(device: str = "cpu") -> Any:
    return SimpleNamespace(device=torch.device(device))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_nonfinite_loss_names_step_and_value(value: float) -> None:
    callback = StopOnNonFinite()
    with pytest.raises(NonFiniteError, match=rf"train/loss is {value} at step 7"):
        callback.on_train_batch_end(TRAINER, module(), {"loss": torch.tensor(value)}, None, 3)


def test_on_an_accelerator_the_loss_is_read_at_the_cadence_and_before_a_checkpoint() -> None:
    callback = StopOnNonFinite(every_n_steps=50)
    callback.on_train_batch_end(TRAINER, module("meta"), torch.tensor(float("nan")), None, 3)
    with pytest.raises(NonFiniteError, match="train/loss"):
        callback.on_save_checkpoint(TRAINER, module("meta"), {"state_dict": {}})


def test_a_nonfinite_weight_is_named() -> None:
    weights = {"f.weight": torch.tensor([1.0, float("nan")]), "steps": torch.tensor([1])}
    with pytest.raises(NonFiniteError, match=r"weight f\.weight is not finite at step 7"):
        StopOnNonFinite().on_save_checkpoint(TRAINER, module(), {"state_dict": weights})
