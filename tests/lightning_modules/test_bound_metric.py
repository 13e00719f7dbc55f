"""Terms of the bound over batches, ranks and draws."""

import math

import pytest
import torch

from lightning_modules.metrics import BoundMetric
from likeness.diffusion.elbo import ElboTerms


def terms(samples: int, seed: int = 0) -> ElboTerms:
    source = torch.Generator().manual_seed(seed)
    return ElboTerms(*torch.rand(3, samples, generator=source, dtype=torch.float64))


def part(whole: ElboTerms, rows: slice) -> ElboTerms:
    return ElboTerms(*(term[rows] for term in whole))


def test_bits_per_dimension_of_unequal_batches_on_two_ranks() -> None:
    draws = [terms(10, seed) for seed in range(3)]
    ranks = [BoundMetric(draws=3) for _ in range(2)]
    for draw, whole in enumerate(draws):
        ranks[0].update(draw, part(whole, slice(0, 1)), dims=5)
        ranks[0].update(draw, part(whole, slice(1, 7)), dims=5)
        ranks[1].update(draw, part(whole, slice(7, 10)), dims=5)
    merged = ranks[0]
    merged.merge_state(ranks[1])
    means = torch.stack([torch.stack(whole).mean(1) for whole in draws]) / (5 * math.log(2))
    answers = merged.compute()
    assert answers["bpd"].item() == pytest.approx(means.sum(1).mean().item(), rel=1e-14)
    for name, value in zip(ElboTerms._fields, means.mean(0).tolist(), strict=True):
        assert answers[name].item() == pytest.approx(value, rel=1e-14)
    assert answers["bpd_se"].item() == pytest.approx((means.sum(1).std() / math.sqrt(3)).item(), rel=1e-12)


def test_one_draw_has_no_standard_error() -> None:
    metric = BoundMetric(draws=1)
    metric.update(0, terms(4), dims=5)
    assert set(metric.compute()) == {"bpd", "reconstruction", "latent", "diffusion"}


def test_no_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        BoundMetric(draws=0)
