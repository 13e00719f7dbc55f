"""Distances on demand: the same as all at once, and what each of them reads."""

import pytest
import torch

from likeness.similarity.catalogue import MEASURES, OfModelsAndInputs, SoftmaxMeasure
from likeness.similarity.d_llv import SingularInputsError
from likeness.similarity.options import ComparisonOptions
from likeness.similarity.pairwise import OF_INPUTS, PairwiseDistances, compare_all_pairs
from likeness.similarity.softmax_models import SoftmaxModels
from tests.likeness.similarity.softmax_pairs import model, related_to, with_bias

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
    with pytest.raises(ValueError, match="but there are 0"):
        distances["term_2"]


def test_what_is_singular_on_one_side_is_defined_on_the_other() -> None:
    every = models()
    flat = SoftmaxModels(every.joint, every.unembeddings, tuple(torch.ones_like(f) for f in every.embeddings))
    distances = PairwiseDistances(flat, OPTIONS)
    with pytest.raises(SingularInputsError):
        distances["d_llv"]
    assert float(distances["term_1"][0, 1]) > 0


def test_the_catalogue_says_what_each_measure_reads() -> None:
    known = PairwiseDistances(models(), OPTIONS)
    for measure in MEASURES.values():
        if isinstance(measure, SoftmaxMeasure):
            assert measure.key in known
            assert (measure.key in OF_INPUTS) == isinstance(measure, OfModelsAndInputs)
