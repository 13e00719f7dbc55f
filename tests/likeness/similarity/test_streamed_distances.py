"""The metric's distances against those of all inputs at once: batches, ranks, many inputs, equal models."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from likeness.similarity.catalogue import MEASURES, DivergenceMeasure, SoftmaxMeasure, needs_inputs, select
from likeness.similarity.comparison import SoftmaxComparison, compare_softmax_models
from likeness.similarity.metric import PairwiseSimilarity, filled
from likeness.similarity.options import ComparisonOptions
from tests.callbacks.two_ranks import on_two_ranks
from tests.likeness.similarity.softmax_pairs import Model, equivalent_to, model, related_to, with_bias

DISTANCES = tuple(name for name, measure in MEASURES.items() if isinstance(measure, SoftmaxMeasure))
OF_INPUTS = tuple(name for name in DISTANCES if needs_inputs(MEASURES[name]))
OF_LABELS = tuple(name for name in DISTANCES if name not in OF_INPUTS)
MEANS = tuple(name for name, measure in MEASURES.items() if isinstance(measure, DivergenceMeasure))
EXACT = 1e-12  # relative

pytestmark = pytest.mark.filterwarnings("ignore:.*the models have different M")
FIELDS = {"kl": "kl_12", "tv": "total_variation"}  # of a comparison, where they are called otherwise


def metric_of(models: list[Model], batches: list[Tensor], names: tuple[str, ...], kept: int) -> PairwiseSimilarity:
    dims, unembeddings = [g.shape[1] for _, g in models], [g for _, g in models]
    metric = PairwiseSimilarity(select(names), dims, [str(number) for number in range(len(models))], kept)
    for index in batches:
        metric.update([f[index] for f, _ in models], unembeddings, index)
    return metric


def trio(n: int, labels: int = 6) -> list[Model]:
    """Two models near each other and a far one with another M, two of them with a bias; all far from the origin."""
    first = model(n, labels, 2, 0)
    models = [with_bias(first), related_to(first, 0.3, 1), with_bias(model(n, labels, 3, 2), 2)]
    return [(f - 5 * (f != 1), g) for f, g in models]


def assert_front_door(values: dict[str, Tensor], models: list[Model], names: tuple[str, ...]) -> None:
    for i, j in ((0, 1), (1, 0), (0, 2), (2, 1)):
        found = compare_softmax_models(*models[i], *models[j])
        for name in names:
            expected = getattr(found, FIELDS.get(name, name))
            value = float(values[name][i, j])
            assert value == pytest.approx(torch.nan if expected is None else expected, rel=EXACT, nan_ok=True), name


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=EXACT, atol=1e-13, equal_nan=True, msg=name)


def test_every_distance_is_the_front_commands_where_all_inputs_are_kept() -> None:
    models = trio(200)
    batches = list(torch.randperm(200, generator=torch.Generator().manual_seed(0)).split(30))
    values = metric_of(models, batches, DISTANCES + MEANS, kept=200).compute()
    assert_front_door(values, models, DISTANCES + MEANS)


def test_only_the_input_side_is_of_the_inputs_that_are_kept() -> None:
    models = trio(500)
    metric = metric_of(models, list(torch.arange(500).split(64)), DISTANCES + MEANS, kept=80)
    values = metric.compute()
    assert_front_door(values, models, OF_LABELS + MEANS)
    kept, _ = filled(metric.stored)
    of_kept = compare_softmax_models(models[0][0][kept], models[0][1], models[1][0][kept], models[1][1])
    of_all = compare_softmax_models(*models[0], *models[1])
    for name in ("term_2", "term_4", "d_svd_g"):
        assert float(values[name][0, 1]) == pytest.approx(getattr(of_kept, name), rel=EXACT), name
    assert float(values["d_llv"][0, 1]) == pytest.approx(d_llv(of_all, of_kept), rel=EXACT)
    expected = max(field for field in (of_all.max_d_svd_f, of_kept.d_svd_g) if field is not None)
    assert float(values["d_fg"][0, 1]) == pytest.approx(expected, rel=EXACT)
    assert of_all.term_2 is not None
    assert of_all.term_2 < float(values["term_2"][0, 1])


def d_llv(labels: SoftmaxComparison, inputs: SoftmaxComparison) -> float:
    """From the definition, with the label side of one comparison and the input side of another."""
    assert inputs.term_2 is not None
    assert inputs.term_4 is not None
    weight = ComparisonOptions().lambda_
    return max(labels.term_1, inputs.term_2, weight * labels.term_3, weight * inputs.term_4)


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(0, 150), max_size=8), seed=st.integers(0, 1000))
def test_any_split_in_any_order_gives_the_single_pass_answer(cuts: list[int], seed: int) -> None:
    models = trio(150)
    single = metric_of(models, [torch.arange(150)], DISTANCES + MEANS, kept=40).compute()
    order = torch.randperm(150, generator=torch.Generator().manual_seed(seed))
    batches = [batch for batch in order.tensor_split(sorted(cuts)) if len(batch)]
    assert_same(metric_of(models, batches, DISTANCES + MEANS, kept=40).compute(), single)


def test_two_ranks_with_uneven_shares_give_the_single_pass_answer(tmp_path: Path) -> None:
    models = trio(151)
    shares = [torch.arange(97).split(10), torch.arange(97, 151).split(7)]
    single = metric_of(models, [torch.arange(151)], DISTANCES + MEANS, kept=40).compute()
    for values in on_two_ranks(
        lambda rank: metric_of(models, list(shares[rank]), DISTANCES + MEANS, kept=40).compute(), tmp_path
    ):
        assert_same(values, single)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), bias=st.booleans(), dim=st.integers(1, 4))
def test_equivalent_models_are_at_distance_zero(seed: int, bias: bool, dim: int) -> None:
    """To 1e-12 in units of what is compared, since the moments are kept as a factor."""
    original = model(300, dim + 3, dim, seed)
    other = equivalent_to(original, seed)
    if bias:
        original = with_bias(original, seed)
        other = torch.cat([other[0], original[0][:, -1:]], 1), torch.cat([other[1], original[1][:, -1:]], 1)
    values = metric_of([original, other], list(torch.arange(300).split(11)), DISTANCES + MEANS, kept=100).compute()
    for name in set(DISTANCES + MEANS) - {"agreement", "m_cca_g"}:
        assert float(values[name].abs().max()) < 1e-12, name
    assert float(values["agreement"].min()) == 1
    assert float(values["m_cca_g"].min()) > 1 - 1e-12


class Million:
    """A million inputs of three models in batches, each a function of its number."""

    def __init__(self) -> None:
        self.unembeddings = list(torch.randn(3, 6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64))

    def batch(self, number: int) -> tuple[list[Tensor], Tensor]:
        generator = torch.Generator().manual_seed(number)
        f = torch.randn(10_000, 2, generator=generator, dtype=torch.float64)
        noise = torch.randn(2, 10_000, 2, generator=generator, dtype=torch.float64)
        return [5 + f, 5 + f + 0.3 * noise[0], 5 + noise[1]], torch.arange(10_000) + 10_000 * number


def test_a_million_inputs_in_constant_memory_give_the_single_pass_answer() -> None:
    data, names = Million(), (*OF_LABELS, "kl", "agreement", "term_2", "m_cca_f")
    metric = PairwiseSimilarity(select(names), [2, 2, 2], ["a", "b", "c"], max_stored=500)
    sizes = set()
    for number in range(100):
        embeddings, ids = data.batch(number)
        metric.update(embeddings, data.unembeddings, ids)
        sizes.add(sum(state.numel() for state in (metric.moments, metric.sums, metric.stored)))
    assert sizes == {19 * 10 + 2 * 3 * 3 + 500 * 7}
    values = metric.compute()
    f, g, other = (torch.cat([data.batch(number)[0][i] for number in range(100)]) for i in (0, 1, 2))
    options = ComparisonOptions(input_set=(0, 1, 2))
    for j, embeddings in ((1, g), (2, other)):
        found = compare_softmax_models(f, data.unembeddings[0], embeddings, data.unembeddings[j], options=options)
        for name in (*OF_LABELS, "kl", "agreement", "m_cca_f"):
            expected = getattr(found, FIELDS.get(name, name))
            assert float(values[name][0, j]) == pytest.approx(expected, rel=EXACT), name
