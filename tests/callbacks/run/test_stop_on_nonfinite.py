"""A poisoned state ends the run and reaches no checkpoint."""

import math
import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from callbacks.run.stop_on_nonfinite import NonFiniteError, StopOnNonFinite
from likeness.diffusion.elbo import ElboTerms

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


def test_a_cadence_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="every_n_steps must be at least 1, got 0"):
        StopOnNonFinite(every_n_steps=0)


def test_a_nonfinite_weight_is_named() -> None:
    weights = {"f.weight": torch.tensor([1.0, float("nan")]), "steps": torch.tensor([1])}
    with pytest.raises(NonFiniteError, match=r"weight f\.weight is not finite at step 7"):
        StopOnNonFinite().on_save_checkpoint(TRAINER, module(), {"state_dict": weights})


def diffusion_outputs(diffusion: list[float], latent: float = 0.1) -> dict[str, Any]:
    """What a diffusion model's training step answers, with times 0.25, 0.5 and 0.75."""
    terms = ElboTerms(torch.zeros(3), torch.full((3,), latent), torch.tensor(diffusion))
    return {"loss": terms.total.mean(), "terms": terms, "t": torch.tensor([0.25, 0.5, 0.75])}


@pytest.mark.parametrize(
    ("outputs", "cause"),
    [
        (diffusion_outputs([1, math.nan, math.inf]), "the diffusion term is not finite, first at t = 0.5000"),
        (diffusion_outputs([1, 2, -math.inf]), "the diffusion term is not finite, first at t = 0.7500"),
        (
            diffusion_outputs([1, 2, math.nan], math.inf),
            "the latent and diffusion terms are not finite, first at t = 0.2500",
        ),
        (
            diffusion_outputs([3e38, 1, 2]) | {"loss": torch.tensor(math.inf)},
            "each term is finite, the largest is the diffusion term, 3e+38 nats at t = 0.2500",
        ),
    ],
)
def test_a_diffusion_model_s_error_names_the_term_and_the_worst_time(outputs: dict[str, Any], cause: str) -> None:
    value = outputs["loss"].item()
    with pytest.raises(NonFiniteError, match=rf"^train/loss is {value} at step 7: {re.escape(cause)}$"):
        StopOnNonFinite().on_train_batch_end(TRAINER, module(), outputs, None, 3)


def test_terms_of_an_earlier_step_are_forgotten() -> None:
    callback = StopOnNonFinite()
    callback.on_train_batch_end(TRAINER, module(), diffusion_outputs([1, 2, 3]), None, 3)
    with pytest.raises(NonFiniteError, match=r"^train/loss is nan at step 7$"):
        callback.on_train_batch_end(TRAINER, module(), {"loss": torch.tensor(math.nan)}, None, 4)


def test_before_a_checkpoint_the_cause_is_named_too() -> None:
    callback = StopOnNonFinite()
    callback.on_train_batch_end(TRAINER, module("meta"), diffusion_outputs([1, math.nan, 2]), None, 3)
    with pytest.raises(NonFiniteError, match=r"the diffusion term is not finite, first at t = 0\.5000"):
        callback.on_save_checkpoint(TRAINER, module("meta"), {"state_dict": {}})
