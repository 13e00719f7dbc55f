"""Prediction hubs at validation are those of all measured contexts at once, and cost no pass of their own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import callbacks
from lightning_modules import LanguageModel, SiblingLanguageModels, SoftmaxClassifier
from likeness.language.hub_metric import PredictionHubMetric
from likeness.language.prediction_hubs import HubThreshold, TokenHubs, prediction_hubs
from tests.callbacks.two_ranks import on_two_ranks
from tests.lightning_modules.points import Points, trainer
from tests.lightning_modules.test_language_model import batch, model
from tests.lightning_modules.test_sibling_language_models import siblings
from tests.lightning_modules.tiny_tokens import TinyTokens

V, K = TinyTokens.vocab_size, 4
LOW = HubThreshold(1.1)
NAMES = ("k_skewness", "hubs", "spearman_hubs", "spearman_all", "zero_frequency_hubs")


def expected(module: Any) -> TokenHubs:
    """Everything at once, in float64."""
    given, rows = batch(), module.measured(batch()).rows
    f, g = module.embed(given.x)[rows].detach().double(), module.unembeddings().detach().double()
    frequencies = given.y[given.y != -1].bincount(minlength=V)
    return prediction_hubs(f, g, k=K, frequencies=frequencies, threshold=LOW)


def index(hubs: TokenHubs) -> dict[str, float | None]:
    link = hubs.frequency
    assert link is not None
    values = (hubs.report.k_skewness, len(hubs.hubs), link.spearman_hubs, link.spearman_all)
    return dict(zip(NAMES, (*values, len(link.zero_frequency_hubs)), strict=True))


@pytest.mark.parametrize("kind", [LanguageModel, SiblingLanguageModels])
def test_the_numbers_are_those_of_one_call_over_all_positions(kind: Any, tmp_path: Path) -> None:
    module = model(head_bias=True) if kind is LanguageModel else siblings()
    each = [module] if kind is LanguageModel else [module.member(i).eval() for i in range(module.num_members)]
    passes: list[int] = []
    module.network.norm.register_forward_hook(lambda *_: passes.append(1))
    fit = trainer(callbacks=[callbacks.PredictionHubs(K, LOW.multiple_of_mean)], default_root_dir=tmp_path)
    fit.validate(module, TinyTokens(), verbose=False)
    assert len(passes) == fit.num_val_batches[0]
    found = {key: float(value) for key, value in fit.callback_metrics.items() if key.startswith("hubness/prediction/")}
    wanted = [index(expected(member.eval())) for member in each]
    for name in NAMES:
        values = [value for own in wanted if (value := own[name]) is not None]
        assert found[f"hubness/prediction/{name}"] == pytest.approx(sum(values) / len(values), rel=1e-6)
        if len(each) > 1:
            assert found[f"hubness/prediction/{name}/max"] == pytest.approx(max(values), rel=1e-6)
    assert found["hubness/prediction/seconds"] > 0


def contexts() -> tuple[Tensor, Tensor, Tensor]:
    """Of two models, with tokens of the text."""
    random = torch.Generator().manual_seed(0)
    f, g = torch.randn(2, 60, 5, generator=random), torch.randn(2, V, 5, generator=random)
    return f, g, torch.randint(V // 2, (80,), generator=random)


def test_batches_and_ranks_change_nothing(tmp_path: Path) -> None:
    f, g, tokens = contexts()
    whole = PredictionHubMetric(2, V, K, LOW)
    whole.update(f, g, tokens)

    def of_rank(rank: int) -> dict[str, Tensor]:
        metric = PredictionHubMetric(2, V, K, LOW)
        cut = 17  # rank 1 has more, in two batches
        for part in ((slice(0, cut),), (slice(cut, 50), slice(50, None)))[rank]:
            metric.update(f[:, part], g, tokens[part])
        return metric.compute()

    for found in on_two_ranks(of_rank, tmp_path):
        for name, values in whole.compute().items():
            assert torch.equal(found[name].nan_to_num(-9), values.nan_to_num(-9)), name


def test_a_constant_model_has_k_hubs_and_no_correlation_over_them() -> None:
    _, g, tokens = contexts()
    metric = PredictionHubMetric(2, V, K, HubThreshold(V / K))
    metric.update(torch.ones(2, 30, 5), g, tokens)
    found = metric.compute()
    assert found["hubs"].tolist() == [K, K]
    assert found["spearman_hubs"].isnan().all()
    likeliest = (g.sum(2)).topk(K, dim=1).indices
    never = [int((torch.bincount(tokens, minlength=V)[ids] == 0).sum()) for ids in likeliest]
    assert found["zero_frequency_hubs"].tolist() == never


def test_other_models_are_refused() -> None:
    fit = trainer(callbacks=[callbacks.PredictionHubs()])
    with pytest.raises(ValueError, match="PredictionHubs measures language models; SoftmaxClassifier is none"):
        fit.validate(SoftmaxClassifier((2,), 3), Points(), verbose=False)
