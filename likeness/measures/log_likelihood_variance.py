"""d_LLV, the log-likelihood variance distance between softmax models.

Nielsen, Marconato, Dittadi and Gresele 2025 (arXiv 2506.03784), Def 4.4:

    d_LLV = max(term 1, term 2, lambda term 3, lambda term 4),

with terms 1 and 3 of a choice of labels (:mod:`label_side`), terms 2 and 4 of a set of inputs (:mod:`input_side`), and
the smallest value over such choices. It is 0 exactly for equivalent models: f = A f', g = A^-T g' + v.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.measures.cloud import Pairs, one_pair
from likeness.measures.comparison_options import ComparisonOptions
from likeness.measures.input_side import (
    InputChoice,
    SingularInputsError,
    best_input_set,
    best_of_sets,
    input_terms,
    sample_input_sets,
)
from likeness.measures.label_side import LabelChoice, LabelTerms, choose_labels, label_terms
from likeness.measures.log_probability_vectors import input_vectors
from likeness.measures.softmax_models import SoftmaxModels


class LogLikelihoodVariance(NamedTuple):
    """d_LLV of B pairs of models, its terms [B], and the choices at which they are taken."""

    d_llv: Tensor
    term_1: Tensor
    term_2: Tensor
    term_3: Tensor
    term_4: Tensor
    labels: LabelChoice
    inputs: Tensor  # [B, M + 1] positions, the pivot first


def d_llv(
    f1: Tensor, g1: Tensor, f2: Tensor, g2: Tensor, options: ComparisonOptions | None = None
) -> LogLikelihoodVariance:
    """d_LLV of two models with f [N, M] and g [K, M]; fields [1].

    Raises ValueError as :meth:`SoftmaxModels.of`, :func:`choose_labels` and :func:`best_input_set` do, and where M
    differs unless the options give an input set.
    """
    models = SoftmaxModels.of([f1, f2], [g1, g2])
    return d_llv_of_pairs(models, one_pair(0, 1, models.embeddings[0].device), options or ComparisonOptions())


def d_llv_of_pairs(models: SoftmaxModels, pairs: Pairs, options: ComparisonOptions) -> LogLikelihoodVariance:
    """d_LLV of the pairs (i [B], j [B]) of the models; raises as :func:`d_llv` does."""
    labels, terms = label_side(models, pairs, options)
    inputs = input_side(models, pairs, options)
    return LogLikelihoodVariance(
        combine(terms, inputs, options),
        terms.term_1,
        inputs.term_2,
        terms.term_3,
        inputs.term_4,
        labels,
        inputs.inputs,
    )


def combine(labels: LabelTerms, inputs: InputChoice, options: ComparisonOptions) -> Tensor:
    """d_LLV [B] from the terms of both sides."""
    scaled = (options.lambda_ * labels.term_3, options.lambda_ * inputs.term_4)
    terms = torch.stack([labels.term_1, inputs.term_2, *scaled])
    return terms.amax(0) if options.combine == "max" else terms.sum(0)


def label_side(models: SoftmaxModels, pairs: Pairs, options: ComparisonOptions) -> tuple[LabelChoice, LabelTerms]:
    """The choice of labels, and terms 1 and 3 there; M may differ."""
    if options.label_choice is None:
        choice = choose_labels(models.labels, pairs)
        terms = label_terms(models.labels, pairs, choice.pivot, choice.left_out)
        return choice, terms._replace(term_1=choice.term_1)
    given = _given_labels(options.label_choice, models.num_labels).to(pairs[0].device)
    number = torch.arange(len(pairs[0]), device=given.device)
    pivot, left_out = given.expand(len(number), 2).unbind(1)
    terms = label_terms(models.labels, pairs, pivot, left_out)
    return LabelChoice(terms.term_1, pivot, left_out, torch.stack([number, pivot, left_out], dim=1)), terms


def input_side(models: SoftmaxModels, pairs: Pairs, options: ComparisonOptions) -> InputChoice:
    """The set of inputs, and terms 2 and 4 there."""
    if options.input_set is not None:
        return _given_inputs(models, pairs, options.input_set)
    if options.search == "sampled":
        samples, size = len(models.embeddings[0]), models.dims[int(pairs[0][0])] + 1
        sets = sample_input_sets(samples, size, options.num_samples, options.seed).to(pairs[0].device)
        return best_of_sets(models.inputs, pairs, models.bare_embeddings, sets, options.min_conditioning)
    found = [_best_inputs(models, i, j, options) for i, j in zip(*(index.tolist() for index in pairs), strict=True)]
    return InputChoice(*(torch.cat(fields) for fields in zip(*found, strict=True)))


def _best_inputs(models: SoftmaxModels, i: int, j: int, options: ComparisonOptions) -> InputChoice:
    inputs, bare = models.inputs, models.bare_embeddings
    if len(bare) > 2:  # in the fewer coordinates that two models share
        inputs = input_vectors(*([x[i], x[j]] for x in (models.embeddings, models.unembeddings)))
    return best_input_set(inputs, [bare[i], bare[j]], options.min_conditioning)


def _given_labels(choice: tuple[int, int], num_labels: int) -> Tensor:
    pivot, left_out = choice
    if pivot == left_out or not all(0 <= label < num_labels for label in choice):
        raise ValueError(f"label_choice must be two of the labels 0..{num_labels - 1}, got {choice}")
    return torch.tensor(choice)


def _given_inputs(models: SoftmaxModels, pairs: Pairs, input_set: Sequence[int]) -> InputChoice:
    samples = len(models.embeddings[0])
    if len(input_set) < 2 or not all(0 <= position < samples for position in input_set):
        raise ValueError(f"input_set must be at least two of the positions 0..{samples - 1}, got {tuple(input_set)}")
    inputs = torch.tensor(input_set, device=pairs[0].device)
    term_2, term_4 = input_terms(models.inputs, pairs, inputs)
    if bool(term_2.isinf().any()):
        raise SingularInputsError(f"the pivot of input_set {tuple(input_set)} coincides in f with another input")
    return InputChoice(term_2, term_4, inputs.expand(len(term_2), -1))
