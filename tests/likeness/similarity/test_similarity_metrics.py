"""The streamed metric: one number at any batch size and on any number of ranks."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from likeness.similarity.catalogue import MEASURES, needs_inputs, select
from likeness.similarity.comparison import compare_softmax_models
from likeness.similarity.metric import PairwiseSimilarity, require_comparable
from likeness.similarity.predictions import kl, log_probabilities
from likeness.similarity.representations.cca import m_cca
from tests.callbacks.two_ranks import on_two_ranks
from tests.likeness.similarity.softmax_pairs import mean_divergences

STREAMED = tuple(name for name, kind in MEASURES.items() if not needs_inputs(kind))
NAMES = ["a", "b", "c"]
DIMS = [2, 3, 2]

pytestmark = pytest.mark.filterwarnings("ignore:.*the models have different M")


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


def test_a_batch_of_which_no_position_is_chosen_adds_nothing() -> None:
    """As of a language model, the positions of whose last, small batch may all be left out."""
    none, everything = torch.arange(0), torch.arange(60)
    batches = [none, everything[:30], none, everything[30:]]
    assert_same(measure(60, batches), measure(60, [everything[:30], everything[30:]]))


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
    with pytest.raises(ValueError, match="unembedding of model 'c' is not finite at label 5: inf"):
        metric.update([f.nan_to_num() for f in embeddings], unembeddings)


EVERYTHING = tuple(MEASURES)


def compute(embeddings: list[Tensor], unembeddings: list[Tensor]) -> tuple[dict[str, Tensor], PairwiseSimilarity]:
    """Every measure of the catalogue, with the metric that computed it."""
    metric = PairwiseSimilarity(select(EVERYTHING), [f.shape[1] for f in embeddings], list("abcd")[: len(embeddings)])
    metric.update(embeddings, unembeddings, torch.arange(len(embeddings[0])))
    return metric.compute(), metric


@pytest.mark.filterwarnings("ignore:.* is NaN for ")
@pytest.mark.parametrize("broken", ["collapsed", "flat", "equal labels", "on a line of labels", "wide"])
def test_a_broken_model_leaves_all_other_pairs_as_they_are(broken: str) -> None:
    generator = torch.Generator().manual_seed(3)
    f = [torch.randn(40, 2, generator=generator, dtype=torch.float64) for _ in range(4)]
    g = [torch.randn(6, 2, generator=generator, dtype=torch.float64) for _ in range(4)]
    if broken == "collapsed":
        f[1] = torch.full_like(f[1], 0.1)
    elif broken == "flat":
        f[1][:, 1] = 2 * f[1][:, 0]
    elif broken == "equal labels":
        g[1][:] = g[1][0].clone()
    elif broken == "on a line of labels":
        g[1][:, 1] = g[1][:, 0]
    else:
        f[1], g[1] = (torch.randn(n, 8, generator=generator, dtype=torch.float64) for n in (40, 6))
    values, metric = compute(f, g)
    others = torch.tensor([0, 2, 3])
    expected, _ = compute([f[i] for i in others], [g[i] for i in others])
    for name in EVERYTHING:
        found = values[name][others[:, None], others]
        torch.testing.assert_close(found, expected[name], rtol=1e-10, atol=1e-12, msg=name)
        pairs = [(i, 1) for i in (0, 2, 3)] + [(1, i) for i in (0, 2, 3)]
        assert {pair for pair in pairs if values[name][pair].isnan()} == {*metric.undefined[name]} - {(1, 1)}
    for name in ("kl", "js", "tv", "agreement", "d_logit"):
        assert values[name].isfinite().all()


def test_a_degenerate_model_is_measured_in_what_it_spans_and_said_to_be() -> None:
    embeddings, unembeddings = models(30)
    embeddings[1][:, 2] = 1.5
    metric = PairwiseSimilarity(select(["kl", "m_cca"]), DIMS, NAMES)
    metric.update(embeddings, unembeddings)
    values = metric.compute()
    assert metric.ranks == (*DIMS[:1], 2, *DIMS[2:])
    expected = m_cca(embeddings[0], embeddings[1][:, :2])
    torch.testing.assert_close(values["m_cca_f"][0, 1], expected, rtol=0, atol=1e-12)
    assert values["m_cca_g"].isfinite().all()
    metric.reset()
    metric.update(models(30)[0], [g[:3] for g in unembeddings])  # K = M = 3 for model b
    reason = r"m_cca_g is NaN for 2 of 3 pairs: the unembeddings of model 'b' .* span 2 of 3"
    with pytest.warns(UserWarning, match=reason):
        metric.compute()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dependence_up_to_the_rounding_of_float32_is_seen(dtype: torch.dtype) -> None:
    """What a network computes in single precision has full rank in double precision."""
    f = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    f[:, 2] = 0.3 * f[:, 0] - 0.7 * f[:, 1]
    metric = PairwiseSimilarity(select(["m_cca_f"]), [3, 2], ["a", "b"])
    metric.update([f.to(dtype), f[:, :2].to(dtype)], [torch.randn(5, 3), torch.randn(5, 2)])
    assert float(metric.compute()["m_cca_f"][0, 1]) == pytest.approx(1)
    assert metric.ranks == (2, 2)


@pytest.mark.parametrize("order", [1, -1])
def test_a_batch_that_single_precision_holds_too_makes_no_other_double_precision_rounding(order: int) -> None:
    f = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    f[:, 2] = f[:, 0] + 1e-7 * f[:, 2]  # a direction that rounding in float32 could have made, but did not
    heads = [torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    metric = PairwiseSimilarity(select(["m_cca_f"]), [3, 3], ["a", "b"])
    for part in (f, torch.zeros(1, 3, dtype=torch.float64))[::order]:
        metric.update([part, part.clone()], heads)
    metric.compute()
    assert metric.ranks == (3, 3)


@pytest.mark.parametrize("count", [2, 7])
def test_a_pairs_numbers_do_not_depend_on_how_many_models_there_are(count: int) -> None:
    """Nor does how its inputs are sought."""
    generator = torch.Generator().manual_seed(5)
    f = list(torch.randn(count, 2000, 2, generator=generator, dtype=torch.float64))
    g = list(torch.randn(count, 6, 2, generator=generator, dtype=torch.float64))
    metric = PairwiseSimilarity(select(["term_2", "term_4", "d_svd_g"]), [2] * count, list("abcdefg")[:count])
    metric.update(f, g, torch.arange(2000))
    values = metric.compute()
    alone = compare_softmax_models(f[0], g[0], f[1], g[1])
    for name in values:
        assert float(values[name][0, 1]) == pytest.approx(getattr(alone, name), rel=1e-12), name
        assert metric.search[name][0, 1] == "exact"


def test_more_inputs_than_are_searched_are_sampled_and_said_to_be() -> None:
    generator = torch.Generator().manual_seed(6)
    f = list(torch.randn(3, 9000, 2, generator=generator, dtype=torch.float64))
    g = list(torch.randn(3, 5, 2, generator=generator, dtype=torch.float64))
    metric = PairwiseSimilarity(select(["term_1", "term_2", "d_llv", "d_fg"]), [2] * 3, NAMES, 9000)
    metric.update(f, g, torch.arange(9000))
    metric.compute()
    assert {name: metric.search[name][0, 2] for name in metric.search} == {
        "term_1": "exact",
        "term_2": "sampled",
        "d_llv": "sampled",
        "d_fg": "sampled",
    }


def test_no_warning_without_reason() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embeddings, unembeddings = models(30)
        compute([embeddings[0], embeddings[2]], [unembeddings[0], unembeddings[2]])


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to compare this run with: two models are needed"):
        require_comparable([(4, 2)], ["this run"])
    with pytest.raises(ValueError, match="numbers of labels K cannot be compared: a has 4, b has 5"):
        require_comparable([(4, 2), (5, 2)], ["a", "b"])
