"""Warm-up and groups of parameters."""

import math

import pytest
import torch
from torch import nn

from lightning_modules.optimization import (
    LinearWarmup,
    WarmupThenCosine,
    WarmupThenDecay,
    without_decay_of_biases,
    without_decay_of_vectors,
)
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
    groups = without_decay_of_biases(module, [(module.ratio, 0.1)])
    members = [{names[id(parameter)] for parameter in group["params"]} for group in groups]
    assert members[0] == {"conv.weight", "norm.weight", "schedule.w", "schedule.b"}
    assert members[1] == {"conv.bias", "norm.bias"}
    assert members[2] == {f"ratio.{name}" for name, _ in module.ratio.named_parameters()}
    assert [group.get("weight_decay") for group in groups] == [None, 0.0, 0.0]
    assert [group.get("lr") for group in groups] == [None, None, 0.1]


def rates(scheduler: torch.optim.lr_scheduler.LRScheduler, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(("steps", "warmup"), [(1436, 0.1), (10, 0.0), (7, 0.3), (5, 1.0), (1, 0.5)])
def test_warm_up_and_decay_are_hugging_faces(steps: int, warmup: float) -> None:
    transformers = pytest.importorskip("transformers")
    ours, theirs = (torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=2e-5) for _ in range(2))
    expected = transformers.get_linear_schedule_with_warmup(theirs, math.ceil(steps * warmup), steps)
    assert rates(WarmupThenDecay(ours, steps, warmup), steps + 2) == pytest.approx(rates(expected, steps + 2))


def test_a_schedule_that_cannot_be() -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=0.2)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        WarmupThenDecay(optimizer, steps=0)
    with pytest.raises(ValueError, match=r"warmup must lie in \[0, 1\], got 10"):
        WarmupThenDecay(optimizer, steps=5, warmup=10)


def test_decay_leaves_biases_and_scales_alone() -> None:
    module = nn.ModuleDict({"linear": nn.Linear(3, 4), "norm": nn.LayerNorm(4), "words": nn.Embedding(5, 4)})
    module["frozen"] = nn.Linear(2, 2).requires_grad_(False)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = without_decay_of_vectors(module)
    members = [{names[id(parameter)] for parameter in group["params"]} for group in groups]
    assert members == [{"linear.weight", "words.weight"}, {"linear.bias", "norm.weight", "norm.bias"}]
    assert [group.get("weight_decay") for group in groups] == [None, 0.0]


def test_half_a_cosine_leads_from_the_learning_rate_to_a_tenth_of_it() -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=2.0)
    schedule = WarmupThenCosine(optimizer, steps=10, warmup=0.2)
    rates = []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    down = [0.2 + 1.8 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(9)]
    assert rates == pytest.approx([0.0, 1.0, *down, 0.2])


@pytest.mark.parametrize("lowest", [-0.1, 1.5])
def test_a_cosine_ends_between_nothing_and_all(lowest: float) -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(1))])
    with pytest.raises(ValueError, match=rf"lowest must lie in \[0, 1\], got {lowest}"):
        WarmupThenCosine(optimizer, steps=4, lowest=lowest)
