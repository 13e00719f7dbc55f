"""Distances on demand: the same as all at once, and what each of them reads."""

from collections.abc import Callable

import pytest
import torch

from likeness.similarity.catalogue import MEASURES, SoftmaxMeasure
from likeness.similarity.options import ComparisonOptions
from likeness.similarity.pairwise import OF_INPUTS, PairwiseDistances, compare_all_pairs
from likeness.similarity.softmax_models import SoftmaxModels
from tests.likeness.similarity.softmax_pairs import Model, model, related_to, with_bias

OPTIONS = ComparisonOptions(search="sampled", num_samples=10)


def models() -> SoftmaxModels:
    first = model(60, 6, 2, 0)
    every = [first, with_bias(related_to(first, 0.5, 1)), model(60, 6, 3, 2)]
    return SoftmaxModels.of([f for f, _ in every], [g for _, g in every])


def test_each_is_what_all_at_once_gives() -> None:
    every = models()
    together = compare_all_pairs(every.embeddings, every.unembeddings, options=OPTIONS)
    names = list(PairwiseDistances(every, OPTIONS))
    assert set(together) - set(names) == {"kl", "js", "total_variation", "agreement"}
    for name in names:
        alone = PairwiseDistances(every, OPTIONS)[name]
        torch.testing.assert_close(alone, together[name], rtol=0, atol=0, equal_nan=True)
    with pytest.raises(KeyError, match="d_llw"):
        PairwiseDistances(every, OPTIONS)["d_llw"]


def test_only_the_input_side_reads_embeddings() -> None:
    every = models()
    without = SoftmaxModels(every.joint, every.unembeddings, tuple(f[:0] for f in every.embeddings))
    distances, expected = PairwiseDistances(without, OPTIONS), PairwiseDistances(every, OPTIONS)
    for name in expected:
        if name not in OF_INPUTS:
            torch.testing.assert_close(distances[name], expected[name], rtol=0, atol=0, equal_nan=True)
    assert "there are 0" in distances.explained("term_2").undefined[0, 1]


def test_what_is_singular_on_one_side_is_defined_on_the_other() -> None:
    every = models()
    flat = SoftmaxModels(every.joint, every.unembeddings, tuple(torch.ones_like(f) for f in every.embeddings))
    found = PairwiseDistances(flat, ComparisonOptions()).explained("d_llv")
    assert "no input set of the embeddings [(60, 2), (60, 2)] has" in found.undefined[0, 1]
    assert "different M: 2 and 3" in found.undefined[2, 0]
    assert float(PairwiseDistances(flat, ComparisonOptions())["term_1"][0, 1]) > 0


def test_the_catalogue_says_what_each_measure_reads() -> None:
    known = PairwiseDistances(models(), OPTIONS)
    for measure in MEASURES.values():
        if isinstance(measure, SoftmaxMeasure):
            assert measure.key in known
            assert (measure.key in OF_INPUTS) == measure.needs_inputs


def collapsed(original: Model) -> Model:
    """All embeddings alike: nothing varies over inputs."""
    return torch.ones_like(original[0]), original[1]


def flat(original: Model) -> Model:
    """Embeddings on a line."""
    return original[0] * original[0].new_tensor([1.0, 0.0]), original[1]


def without_labels(original: Model) -> Model:
    """Label vectors that are all alike."""
    return original[0], torch.ones_like(original[1])


def wide(original: Model) -> Model:
    """With more dimensions than labels."""
    return model(len(original[0]), len(original[1]), 9, 5)


@pytest.mark.parametrize("broken", [collapsed, flat, without_labels, wide])
@pytest.mark.parametrize("others", [1, 4])
def test_numbers_of_a_pair_are_its_own(broken: Callable[[Model], Model], others: int) -> None:
    """Whatever else is compared, broken models and more of them, a pair has the numbers it has alone."""
    first = model(60, 7, 2, 0)
    pair = [first, related_to(first, 0.5, 1)]
    company = [broken(model(60, 7, 2, 2)), *(model(60, 7, 2, seed) for seed in range(3, 3 + others))]
    options = ComparisonOptions(search="auto")
    alone, together = (
        compare_all_pairs([f for f, _ in every], [g for _, g in every], options=options)
        for every in (pair, [pair[0], company[0], pair[1], *company[1:]])
    )
    for name, matrix in alone.items():
        assert float(matrix[0, 1]) == pytest.approx(float(together[name][0, 2]), rel=1e-11, abs=1e-13), name
        assert float(matrix[1, 0]) == pytest.approx(float(together[name][2, 0]), rel=1e-11, abs=1e-13), name
    for name in ("kl", "js", "d_logit"):
        assert bool(together[name].isfinite().all())


@pytest.mark.parametrize("broken", [collapsed, flat, without_labels, wide])
def test_what_is_undefined_says_why_and_of_which_model(broken: Callable[[Model], Model]) -> None:
    every = [model(60, 7, 2, 0), model(60, 7, 2, 1), broken(model(60, 7, 2, 2))]
    models = SoftmaxModels.of([f for f, _ in every], [g for _, g in every], ["a", "b", "broken"])
    distances = PairwiseDistances(models, ComparisonOptions())
    for name in distances:
        values, undefined, _ = distances.explained(name)
        off_diagonal = [(i, j) for i in range(3) for j in range(3) if i != j]
        assert {pair for pair in off_diagonal if bool(values[pair].isnan())} == {*undefined} & {*off_diagonal}, name
        assert not {(0, 1), (1, 0)} & undefined.keys()
        assert all("'broken'" in why or "M: " in why or "(60, " in why for why in undefined.values()), undefined


def test_the_search_is_said_beside_the_number() -> None:
    first = model(60, 12, 3, 0)
    every = [first, related_to(first, 0.5)]
    models = SoftmaxModels.of([f for f, _ in every], [g for _, g in every])
    few = ComparisonOptions(search="sampled", num_samples=5, max_subsets=10)
    for name, wanted in {"term_1": "exact", "term_2": "sampled", "max_d_svd_f": "sampled", "d_rep": "exact"}.items():
        assert PairwiseDistances(models, few).explained(name).search[1, 0] == wanted
        assert PairwiseDistances(models, ComparisonOptions()).explained(name).search[0, 1] == "exact"
    given = ComparisonOptions(input_set=(0, 1, 2, 3))
    assert PairwiseDistances(models, given).explained("d_llv").search[0, 1] == "given"


def test_auto_depends_on_the_number_of_inputs_alone() -> None:
    auto = ComparisonOptions(search="auto")
    assert auto.searches_all(8192)
    assert not auto.searches_all(8193)
    assert (auto.sampled_sets(10_000, 3), auto.sampled_sets(10_000, 65)) == (200, 153)


def test_a_single_model_has_no_pairs() -> None:
    f, g = model(20, 5, 2)
    found = compare_all_pairs([f], [g])
    assert {matrix.shape for matrix in found.values()} == {(1, 1)}
    assert float(found["d_llv"]) == 0
    with pytest.raises(ValueError, match="there are no models to compare"):
        compare_all_pairs([], [])
