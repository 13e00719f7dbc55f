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
    return ElboTerms(*(term[:, rows] for term in whole))


def test_bits_per_dimension_of_unequal_batches_on_two_ranks() -> None:
    draws = [terms(10, seed) for seed in range(3)]
    ranks = [BoundMetric(draws=3) for _ in range(2)]
    whole = ElboTerms(*map(torch.stack, zip(*draws, strict=True)))
    ranks[0].update(part(whole, slice(0, 1)), dims=5)
    ranks[0].update(part(whole, slice(1, 7)), dims=5)
    ranks[1].update(part(whole, slice(7, 10)), dims=5)
    merged = ranks[0]
    merged.merge_state(ranks[1])
    means = torch.stack([torch.stack(whole).mean(1) for whole in draws]) / (5 * math.log(2))
    answers = merged.compute()
    assert answers["bpd"].item() == pytest.approx(means.sum(1).mean().item(), rel=1e-14)
    for name, value in zip(ElboTerms._fields, means.mean(0).tolist(), strict=True):
        assert answers[name].item() == pytest.approx(value, rel=1e-14)
    assert answers["bpd_draw_se"].item() == pytest.approx((means.sum(1).std() / math.sqrt(3)).item(), rel=1e-12)
    of_samples = torch.stack([sum(terms) for terms in draws]).mean(0) / (5 * math.log(2))
    assert answers["bpd_sample_se"].item() == pytest.approx((of_samples.std() / math.sqrt(10)).item(), rel=1e-12)


@pytest.mark.parametrize(("draws", "samples"), [(1, 1), (1, 4), (3, 1), (3, 4)])
def test_errors_that_are_not_defined_are_left_out(draws: int, samples: int) -> None:
    metric = BoundMetric(draws)
    metric.update(ElboTerms(*torch.rand(3, draws, samples)), dims=5)
    errors = [name for name, count in (("_sample_se", samples), ("_draw_se", draws)) if count > 1]
    assert set(metric.compute()) == {f"{name}{error}" for name in BoundMetric().quantities for error in ("", *errors)}


def test_states_made_in_inference_mode_go_on_outside() -> None:
    metric = BoundMetric()
    with torch.inference_mode():
        metric.reset()
    metric.update(ElboTerms(*torch.ones(3, 1, 4)), dims=3)
    assert metric.compute()["bpd"].item() == pytest.approx(1 / math.log(2), rel=1e-14)


def test_float32_terms_are_added_in_float64() -> None:
    """A sum of a million of them in float32 would be off in the fourth digit."""
    metric = BoundMetric()
    for _ in range(100):
        metric.update(ElboTerms(*torch.full((3, 1, 10_000), 0.1)), dims=1)
    expected = 3 * float(torch.tensor(0.1).double()) / math.log(2)
    assert metric.compute()["bpd"].item() == pytest.approx(expected, rel=1e-12)


def test_no_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        BoundMetric(draws=0)
