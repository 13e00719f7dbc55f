"""The streamed metric: one number at any batch size and on any number of ranks."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from callbacks.metrics.similarity import PairwiseSimilarity, input_search, require_comparable, require_enough
from likeness.similarity.catalogue import MEASURES, STORED, select
from likeness.similarity.cca import m_cca
from likeness.similarity.options import ComparisonOptions
from likeness.similarity.predictions import kl, log_probabilities
from tests.callbacks.two_ranks import on_two_ranks
from tests.likeness.similarity.softmax_pairs import mean_divergences

STREAMED = tuple(name for name, kind in MEASURES.items() if not isinstance(kind, STORED))
NAMES = ["a", "b", "c"]
DIMS = [2, 3, 2]


def models(samples: int, labels: int = 6, offset: float = 50.0) -> tuple[list[Tensor], list[Tensor]]:
    """Three random models whose embeddings lie far from the origin."""
    generator = torch.Generator().manual_seed(0)
    embeddings = [torch.randn(samples, dim, generator=generator, dtype=torch.float64) for dim in DIMS]
    unembeddings = [torch.randn(labels, dim, generator=generator, dtype=torch.float64) for dim in DIMS]
    return [f + offset for f in embeddings], unembeddings


def measure(samples: int, batches: list[Tensor], names: tuple[str, ...] = STREAMED) -> dict[str, Tensor]:
    embeddings, unembeddings = models(samples)
    metric = PairwiseSimilarity(select(names), DIMS, NAMES)
    for index in batches:
        metric.update([f[index] for f in embeddings], unembeddings, index)
    return metric.compute()


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-12, atol=1e-12, equal_nan=True, msg=name)


def test_against_the_pure_functions() -> None:
    embeddings, unembeddings = models(100)
    values = measure(100, [torch.arange(100)])
    torch.testing.assert_close(values["kl"], mean_divergences(kl, log_probabilities(embeddings, unembeddings)))
    for i in range(3):
        for j in range(3):
            torch.testing.assert_close(values["m_cca_f"][i, j], m_cca(embeddings[i], embeddings[j]))
            torch.testing.assert_close(values["m_cca_g"][i, j], m_cca(unembeddings[i], unembeddings[j]))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_any_batch_size_gives_the_same_number(batch_size: int) -> None:
    everything = torch.arange(100)
    assert_same(measure(100, list(everything.split(batch_size))), measure(100, [everything]))


@pytest.mark.parametrize("samples", [9, 100])
def test_two_ranks_with_uneven_shares_give_the_same_number(samples: int, tmp_path: Path) -> None:
    everything = torch.arange(samples)
    ranks = on_two_ranks(lambda rank: measure(samples, list(everything[rank::2].split(3))), tmp_path)
    single = measure(samples, [everything])
    for values in ranks:
        assert_same(values, single)


KEPT = ("d_llv", "d_fg", "d_rep", "procrustes", "mutual_knn", "kl")


def measure_stored(samples: int, batches: list[Tensor], max_stored: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    f = torch.randn(3, samples, 2, generator=generator, dtype=torch.float64)
    g = torch.randn(3, 6, 2, generator=generator, dtype=torch.float64)
    metric = PairwiseSimilarity(select(KEPT), [2, 2, 2], NAMES, max_stored)
    for index in batches:
        metric.update(list(f[:, index]), list(g), index)
    return metric.compute()


@pytest.mark.parametrize("max_stored", [700, 2000])
def test_stored_inputs_are_the_same_whatever_order_they_come_in(max_stored: int, tmp_path: Path) -> None:
    everything = torch.arange(1000)
    single = measure_stored(1000, [everything], max_stored)
    shuffled = torch.randperm(1000, generator=torch.Generator().manual_seed(2))
    assert_same(measure_stored(1000, list(shuffled.split(37)), max_stored), single)
    for values in on_two_ranks(lambda rank: measure_stored(1000, [everything[rank::2]], max_stored), tmp_path):
        assert_same(values, single)


def test_the_input_search_is_exact_where_it_is_cheap_and_fits_the_samples_where_it_is_not() -> None:
    assert input_search(360, [2] * 8).search == "exact"
    assert input_search(2000, [2] * 20) == ComparisonOptions(search="sampled", num_samples=200)
    assert input_search(2000, [64] * 20).num_samples == 2000 // 65


def test_what_the_moments_determine_stores_no_inputs() -> None:
    metric = PairwiseSimilarity(select(["term_1", "max_d_svd_f", "d_logit", "d_rep", "agreement"]), DIMS, NAMES)
    metric.update(*models(20))
    assert len(metric.stored) == 0
    assert metric.compute()["d_logit"][0, 1] > 0


def test_inputs_that_must_be_stored_need_ids() -> None:
    metric = PairwiseSimilarity(select(["d_llv"]), DIMS, NAMES)
    with pytest.raises(ValueError, match="need their ids"):
        metric.update(*models(20))


def test_reset_forgets() -> None:
    embeddings, unembeddings = models(30)
    metric = PairwiseSimilarity(select(["kl", "m_cca"]), DIMS, NAMES)
    metric.update([2 - f for f in embeddings], unembeddings)
    metric.reset()
    metric.update(embeddings, unembeddings)
    assert_same(metric.compute(), measure(30, [torch.arange(30)], ("kl", "m_cca")))


def test_forward_answers_for_the_batch_and_accumulates() -> None:
    embeddings, unembeddings = models(40)
    metric = PairwiseSimilarity(select(["kl", "m_cca"]), DIMS, NAMES)
    for index in torch.arange(40).split(20):
        batch = metric([f[index] for f in embeddings], unembeddings)
    assert_same(metric.compute(), measure(40, [torch.arange(40)], ("kl", "m_cca")))
    last = PairwiseSimilarity(select(["kl", "m_cca"]), DIMS, NAMES)
    last.update([f[20:] for f in embeddings], unembeddings)
    assert_same(batch, last.compute())


def test_values_that_are_not_finite_are_named() -> None:
    embeddings, unembeddings = models(30)
    embeddings[1][4, 2] = torch.nan
    metric = PairwiseSimilarity(select(["kl"]), DIMS, NAMES)
    with pytest.raises(ValueError, match="embedding of model 'b' is not finite at sample 104: nan"):
        metric.update(embeddings, unembeddings, torch.arange(100, 130))
    unembeddings[2][5, 0] = torch.inf
    with pytest.raises(ValueError, match="label vector of model 'c' is not finite at label 5: inf"):
        metric.update([f.nan_to_num() for f in embeddings], unembeddings)


def test_a_collapsed_representation_is_reported_and_the_rest_is_measured() -> None:
    embeddings, unembeddings = models(30)
    embeddings[1][:, 2] = 1.5
    metric = PairwiseSimilarity(select(["kl", "m_cca"]), DIMS, NAMES)
    metric.update(embeddings, unembeddings)
    with pytest.warns(UserWarning, match="m_cca_f is NaN: m_CCA of model 'b' .* its rank is 2"):
        values = metric.compute()
    assert values["m_cca_f"].isnan().all()
    assert values["kl"].isfinite().all()
    assert values["m_cca_g"].isfinite().all()


def test_what_is_degenerate_for_one_distance_is_not_for_the_others() -> None:
    embeddings, unembeddings = models(30, offset=0)
    unembeddings[1][4] = unembeddings[1][0]
    metric = PairwiseSimilarity(select(["term_1", "d_logit", "d_rep"]), DIMS, NAMES)
    metric.update(embeddings, unembeddings)
    with pytest.warns(UserWarning, match="term_1 is NaN: the log-ratio of labels 0 and 4 of model 'b'"):
        values = metric.compute()
    assert values["term_1"].isnan().all()
    assert values["d_logit"].isfinite().all()
    metric.reset()
    metric.update(embeddings, [g[:3] for g in unembeddings])  # K = M = 3 for model b: no L is invertible
    with pytest.warns(UserWarning, match=r"d_rep is NaN: the unembeddings of model 'b' .*\[3, 3\], span 2 of 3"):
        values = metric.compute()
    assert values["d_rep"].isnan().all()
    assert values["d_logit"].isfinite().all()


def test_no_warning_without_reason() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(30, [torch.arange(30)])


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to compare this run with: two models are needed"):
        require_comparable([(4, 2)], ["this run"])
    with pytest.raises(ValueError, match="numbers of labels K cannot be compared: a has 4, b has 5"):
        require_comparable([(4, 2), (5, 2)], ["a", "b"])
    measures = select(["kl", "m_cca"])
    with pytest.raises(ValueError, match=r"m_cca_f needs more samples than dimensions: model 'b' has 8 .* 7 samples"):
        require_enough(measures, [(10, 2), (10, 8)], ["a", "b"], samples=7)
    with pytest.raises(ValueError, match=r"m_cca_g needs more labels than dimensions: model 'b' has 8 .* 4 labels"):
        require_enough(measures, [(4, 2), (4, 8)], ["a", "b"], samples=100)
    require_enough(select(["kl"]), [(4, 8)], ["a"], samples=1)
