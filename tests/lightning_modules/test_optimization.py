"""Warm-up and groups of parameters."""

import pytest
import torch
from torch import nn

from lightning_modules.optimization import LinearWarmup, without_decay_of_biases
from likeness.diffusion import AffineSchedule, LearnedRatio


def test_the_first_step_has_no_learning_rate_and_the_last_of_the_warm_up_has_all() -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=0.2)
    warmup = LinearWarmup(optimizer, steps=4)
    rates = []
    for _ in range(7):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        warmup.step()
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.2, 0.2])


def test_a_warm_up_goes_on_where_it_was() -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=0.2)
    warmup = LinearWarmup(optimizer, steps=4)
    for _ in range(2):
        optimizer.step()
        warmup.step()
    other = torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=0.2)
    resumed = LinearWarmup(other, steps=4)
    resumed.load_state_dict(warmup.state_dict())
    other.load_state_dict(optimizer.state_dict())
    other.step()
    resumed.step()
    assert other.param_groups[0]["lr"] == pytest.approx(0.15)


def test_no_warm_up_and_a_negative_one() -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=0.2)
    assert LinearWarmup(optimizer, steps=0).get_last_lr() == [0.2]
    with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
        LinearWarmup(optimizer, steps=-1)


def test_decay_hits_scales_of_normalisation_and_of_the_schedule_but_no_bias_and_not_the_ratio() -> None:
    module = nn.Module()
    module.conv, module.norm, module.frozen = (
        nn.Conv2d(3, 4, 1),
        nn.GroupNorm(2, 4),
        nn.Linear(2, 2).requires_grad_(False),
    )
    module.schedule, module.ratio = AffineSchedule(), LearnedRatio(width=4)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = without_decay_of_biases(module, [module.ratio])
    members = [{names[id(parameter)] for parameter in group["params"]} for group in groups]
    assert members[0] == {"conv.weight", "norm.weight", "schedule.w", "schedule.b"}
    assert members[1] == {"conv.bias", "norm.bias"}
    assert members[2] == {f"ratio.{name}" for name, _ in module.ratio.named_parameters()}
    assert [group.get("weight_decay") for group in groups] == [None, 0.0, 0.0]
