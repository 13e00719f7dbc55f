"""Two ranks, each with whole weights or its share of them, train and measure what one process does."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from lightning_modules import LanguageModel, ShardedDataParallel, SiblingLanguageModels
from lightning_modules.optimization import LanguageAdamW
from likeness.networks import GPT2
from tests.callbacks.two_ranks import on_two_ranks
from tests.lightning_modules.points import trainer
from tests.lightning_modules.tiny_tokens import CONTEXT, TinyTokens

OPTIONS: dict[str, Any] = {
    "network": partial(GPT2, width=16, depth=2, heads=2, head_bias=True, bias=False),
    "optimizer": partial(LanguageAdamW, lr=1e-2),
    "seed": 3,
}


class Case(NamedTuple):
    kind: Callable[..., Any]
    strategy: Any
    precision: str
    tolerance: float  # of weights


CASES = {
    "ddp": Case(LanguageModel, "ddp", "64-true", 1e-9),
    "siblings": Case(SiblingLanguageModels, "ddp", "64-true", 1e-9),
    "sharded": Case(LanguageModel, ShardedDataParallel, "32-true", 1e-5),  # Lightning has no float64 for it
    "sharded siblings": Case(partial(SiblingLanguageModels, num_members=3), ShardedDataParallel, "32-true", 1e-5),
}


def trained(case: Case, ranks: int) -> dict[str, Tensor]:
    """Weights, those of shards as a checkpoint has them, and what was logged."""
    several: dict[str, Any] = {}
    if ranks > 1:
        several = {"strategy": case.strategy if isinstance(case.strategy, str) else case.strategy(), "devices": ranks}
    fit = trainer(precision=case.precision, max_steps=4, gradient_clip_val=0.5, **several)
    module = case.kind(TinyTokens.vocab_size, CONTEXT, **OPTIONS)
    fit.fit(module, TinyTokens())
    assert isinstance(module.network, FSDPModule) == (ranks > 1 and case.strategy is ShardedDataParallel)
    weights = fit.strategy.lightning_module_state_dict()
    return {name: value.detach().clone() for name, value in (weights | fit.callback_metrics).items()}


def on_rank(rank: int) -> dict[str, dict[str, Tensor]]:
    """In a process that Lightning takes for one of torchrun's."""
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }
    return {name: trained(case, 2) for name, case in CASES.items()}


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = on_two_ranks(on_rank, tmp_path_factory.mktemp("ranks"))[0]
    return found


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_do_what_one_process_does(name: str, of_ranks: dict[str, dict[str, Tensor]]) -> None:
    one, two = trained(CASES[name], 1), of_ranks[name]
    assert two.keys() == one.keys()
    assert {"val/nll", "val/bits_per_byte", "train/loss"} <= one.keys()
    for key, value in one.items():
        limits = {"rtol": 1e-5, "atol": 0.0} if "/" in key else {"rtol": 0.0, "atol": CASES[name].tolerance}
        torch.testing.assert_close(two[key], value, **limits, msg=lambda message, key=key: f"{key}: {message}")
