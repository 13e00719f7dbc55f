"""d_LLV, the log-likelihood variance distance between softmax models.

Nielsen, Marconato, Dittadi and Gresele 2025 (arXiv 2506.03784), Def 4.4:

    d_LLV = max(term 1, term 2, lambda term 3, lambda term 4),

with terms 1 and 3 of a choice of labels (:mod:`label_side`), terms 2 and 4 of a set of inputs (:mod:`input_side`), and
the smallest value over such choices. It is 0 exactly for equivalent models: f = A f', g = A^-T g' + v.

The largest entries of term 1 for each pivot, of all pivots or of those that can have the smallest term 1.

The label side of d_LLV: terms 1 and 3, and the pivot and left-out label that make term 1 smallest.

Nielsen, Marconato, Dittadi and Gresele 2025 (arXiv 2506.03784), Def 4.4. A choice is a pivot label y0 and a
label l that is left out; the others, S, are compared with the pivot:

    sigma(y) = sd_x[lp(y|x) - lp(y0|x)]
    term 1 = max over y in S of max(sd_x[lp(y|x) / sigma(y) - lp'(y|x) / sigma'(y)], the same of y0)
    term 3 = max over y in S of |sigma(y) - sigma'(y)|

The paper's code tries every choice. Since entry (y0, y) does not depend on l, the smallest term 1 is the smallest
second-largest entry of a row, with the largest one left out (derived, not in the paper).

The input side of d_LLV: terms 2 and 4, and the set of inputs that makes term 2 smallest.

Nielsen, Marconato, Dittadi and Gresele 2025 (arXiv 2506.03784), Def 4.4. An input set is a pivot x0 and M inputs
x1..xM whose differences from the pivot, N = [f(x1) - f(x0) .. f(xM) - f(x0)], are invertible in both models:

    phi(j) = sd_y[lp(y|xj) - lp(y|x0)], over all labels
    term 2 = max_j max(sd_y[lp(y|xj) / phi(j) - lp'(y|xj) / phi'(j)], the same of x0)
    term 4 = max_j |phi(j) - phi'(j)|

The paper samples disjoint sets. Since an entry depends on the pivot and one input only, the smallest term 2 is the
smallest M-th smallest entry of a row (derived, not in the paper).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from likeness.similarity.cloud import Cloud, GapRows, Pairs, gaps_from, gaps_in_sets, one_pair, padded
from likeness.similarity.options import MIN_CONDITIONING, ComparisonOptions
from likeness.similarity.softmax_models import LabelVectors, SoftmaxModels, input_vectors

ZERO = 1e-12  # what rounding leaves of equivalent models: all their choices tie
TIE_TOLERANCE = 1e-6  # relative: the entries are symmetric, so that pivots often share their second-largest one
MAX_TIES = 64  # pivots of equivalent models that are looked at
_ROWS_AT_ONCE = 256


class ConstantLogRatioError(ValueError):
    """lp(y|x) - lp(y0|x) is the same for every input, so that nothing can be measured in units of it."""


class RowMaxima(NamedTuple):
    """For B pairs of models and each of K pivots; inf where the pivot was ruled out."""

    largest: Tensor  # [B, K, 2] the two largest entries
    worst: Tensor  # [B, K] the label of the largest one


def threshold(term_1: Tensor) -> Tensor:
    """Up to where choices tie with the best one, [B]."""
    return (term_1 * (1 + TIE_TOLERANCE)).clamp(min=ZERO)


def maxima_of_all_pivots(vectors: LabelVectors, pairs: Pairs) -> RowMaxima:
    """Every entry is looked at, in blocks of rows."""
    gaps = GapRows(vectors.cloud, pairs)
    index = torch.arange(vectors.num_labels, device=vectors.mean.device)
    tops = [entries_of_term_1(gaps, index[rows], vectors, pairs).topk(2, dim=2) for rows in gaps.blocks()]
    values, labels = zip(*tops, strict=True)
    return RowMaxima(torch.cat(values, dim=1), torch.cat(labels, dim=1)[..., 0])


def maxima_of_promising_pivots(vectors: LabelVectors, pair: Pairs) -> RowMaxima:
    """For one pair of models with many labels: as many rows as it takes to rule all other pivots out.

    Entries are symmetric, so that a row that is known says something of every other one: its second-largest entry is
    at least the second-largest met so far. Most is learnt from the rows of labels with large entries.
    """
    labels, device = vectors.num_labels, vectors.mean.device
    gaps = GapRows(vectors.cloud, pair)
    largest = vectors.mean.new_full((labels, 2), torch.inf)  # of rows that are known
    worst = torch.zeros(labels, dtype=torch.long, device=device)
    met = vectors.mean.new_full((labels, 2), -torch.inf)  # of all rows, in known columns
    unknown = torch.ones(labels, dtype=torch.bool, device=device)
    rows = torch.arange(min(_ROWS_AT_ONCE, labels), device=device)
    while len(rows):
        entries = entries_of_term_1(gaps, rows, vectors, pair)[0]
        top = entries.topk(2, dim=1)
        largest[rows], worst[rows], unknown[rows] = top.values, top.indices[:, 0], False
        met = torch.cat([met, entries.topk(min(2, len(rows)), dim=0).values.T], dim=1).topk(2, dim=1).values
        if int((largest[:, 1] <= ZERO).sum()) >= MAX_TIES:
            break
        possible = unknown & (met[:, 1] <= threshold(largest[:, 1].amin()))
        rows = _next_rows(met, unknown, possible)
    return RowMaxima(largest[None], worst[None])


def _next_rows(met: Tensor, unknown: Tensor, possible: Tensor) -> Tensor:
    """Of the possible pivots those with the smallest bounds, and as many unknown labels with the largest entries."""
    if not bool(possible.any()):
        return unknown.new_empty(0, dtype=torch.long)
    count = min(_ROWS_AT_ONCE // 2, len(met))
    promising = met[:, 1].masked_fill(~possible, torch.inf).topk(count, largest=False).indices
    telling = met[:, 0].masked_fill(~unknown, -torch.inf).topk(count).indices
    chosen = torch.zeros_like(unknown)
    chosen[promising] = possible[promising]
    chosen[telling] |= unknown[telling]
    return chosen.nonzero().flatten()


def entries_of_term_1(gaps: GapRows, pivots: Tensor, vectors: LabelVectors, pairs: Pairs) -> Tensor:
    """Entries of term 1 for these pivots, [B, rows, K], with -inf at the pivots themselves.

    Raises ConstantLogRatioError where another one is undefined.
    """
    entries = gaps.rows(pivots)
    entries.scatter_(2, pivots.expand(len(entries), -1)[..., None], -torch.inf)
    if bool((entries == torch.inf).any()):
        pair, row, label = (entries == torch.inf).nonzero()[0].tolist()
        raise constant_log_ratio(vectors, pairs, pair, int(pivots[row]), label)
    return entries


def constant_log_ratio(vectors: LabelVectors, pairs: Pairs, pair: int, pivot: int, label: int) -> ConstantLogRatioError:
    """The error for one of the pairs, naming the model whose log-ratio of the two labels varies less."""
    own = vectors.cloud.own
    models = [int(index[pair]) for index in pairs]
    deviations = {model: float((own[model, pivot] - own[model, label]).norm()) for model in models}
    model = min(deviations, key=lambda model: deviations[model])
    return ConstantLogRatioError(
        f"the log-ratio of labels {pivot} and {label} of model {vectors.names[model]!r} is constant over the inputs "
        f"(standard deviation {deviations[model]:.3g}), so d_LLV is undefined"
    )


_FEW_LABELS = 4096  # so few that all rows are looked at


class LabelChoice(NamedTuple):
    """The minimisers of term 1 for B pairs of models."""

    term_1: Tensor  # [B]
    pivot: Tensor  # [B], the smallest among ties
    left_out: Tensor  # [B], the smallest among those of this pivot
    ties: Tensor  # [T, 3] rows (pair, pivot, left out), ascending; at most MAX_TIES of each pair


class LabelTerms(NamedTuple):
    """Terms 1 and 3 at given choices, [B]."""

    term_1: Tensor
    term_3: Tensor


def term_1_matrix(vectors: LabelVectors, first: int = 0, second: int = 1) -> tuple[Tensor, Tensor]:
    """The entries of terms 1 and 3 for pivot y0 and label y of two of the models: T1 and T3, [K, K], symmetric.

    The diagonal is 0. Raises ConstantLogRatioError naming the labels and the model.
    """
    pairs = one_pair(first, second, vectors.mean.device)
    labels = torch.arange(vectors.num_labels, device=vectors.mean.device)
    entries = entries_of_term_1(GapRows(vectors.cloud, pairs), labels, vectors, pairs)[0]
    s, t = (torch.cdist(points, points) for points in vectors.cloud.own[[first, second]])
    return entries.fill_diagonal_(0), (s - t).abs()


def choose_labels(vectors: LabelVectors, pairs: Pairs) -> LabelChoice:
    """The pivot and left-out label with the smallest term 1, for B pairs of models.

    Exact; with many labels the rows of hopeless pivots are not computed. Among choices within 1e-6 of each other, or
    under 1e-12, the smallest pivot is taken and then the smallest left-out label; ``ties`` holds the others.

    Raises:
        ValueError: for fewer than 3 labels; ConstantLogRatioError, naming the labels and the model.
    """
    count, labels = len(pairs[0]), vectors.num_labels
    if labels < 3:
        raise ValueError(f"d_LLV needs a pivot, a left-out and a compared label, but there are {labels} labels")
    if labels <= _FEW_LABELS:
        maxima = maxima_of_all_pivots(vectors, pairs)
    else:
        each = [
            maxima_of_promising_pivots(vectors, (i, j))
            for i, j in zip(*(torch.split(x, 1) for x in pairs), strict=True)
        ]
        maxima = RowMaxima(*(torch.cat(fields) for fields in zip(*each, strict=True)))
    term_1 = maxima.largest[..., 1].amin(1)
    ties = _ties(maxima, threshold(term_1))
    start = torch.searchsorted(ties[:, 0].contiguous(), torch.arange(count, device=ties.device))
    return LabelChoice(term_1, ties[start, 1], ties[start, 2], ties)


def label_terms(vectors: LabelVectors, pairs: Pairs, pivot: Tensor, left_out: Tensor) -> LabelTerms:
    """Terms 1 and 3 at pivots and left-out labels [B], for B pairs of models; raises as :func:`choose_labels`."""
    gap, s, t = gaps_from(vectors.cloud, pairs, pivot)
    labels = torch.arange(gap.shape[1], device=gap.device)
    compared = (labels != pivot[:, None]) & (labels != left_out[:, None])
    for pair, label in (gap.isinf() & compared).nonzero().tolist():
        raise constant_log_ratio(vectors, pairs, pair, int(pivot[pair]), label)
    term_1, term_3 = (entries.masked_fill(~compared, -torch.inf).amax(1) for entries in (gap, (s - t).abs()))
    return LabelTerms(term_1, term_3)


def _ties(maxima: RowMaxima, limit: Tensor) -> Tensor:
    """Choices [T, 3] of (pair, pivot, left out) whose term 1 is at most the limit [B]."""
    largest, worst = maxima
    rows = (largest[..., 1] <= limit[:, None]).nonzero()
    rows = rows[_leading(rows[:, 0])]
    pair, pivot = rows.unbind(1)
    labels = torch.arange(worst.shape[1], device=worst.device)
    leaves_worst = labels == worst[pair, pivot, None]
    term_1 = torch.where(leaves_worst, largest[pair, pivot, 1, None], largest[pair, pivot, 0, None])
    row, left_out = ((term_1 <= limit[pair, None]) & (labels != pivot[:, None])).nonzero().unbind(1)
    ties = torch.column_stack([rows[row], left_out])
    return ties[_leading(ties[:, 0])]


def _leading(groups: Tensor) -> Tensor:
    """Which of the entries are among the first MAX_TIES of their group; groups [T] ascend."""
    position = torch.arange(len(groups), device=groups.device)
    return position - torch.searchsorted(groups.contiguous(), groups.contiguous()) < MAX_TIES


_SETS_AT_ONCE = 256


class SingularInputsError(ValueError):
    """No set of inputs has differences that span the representations of both models."""


class InputChoice(NamedTuple):
    """Input sets of B pairs of models."""

    term_2: Tensor  # [B]
    term_4: Tensor  # [B]
    inputs: Tensor  # [B, M + 1] positions in the sample, the pivot first


def input_terms(cloud: Cloud, pairs: Pairs, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Terms 2 and 4 at an input set [m + 1], the pivot first, for B pairs of the models with this cloud; [B].

    inf where the pivot coincides with another input.
    """
    term_2, term_4 = _terms_of_sets(cloud, pairs, inputs[None])
    return term_2.squeeze(1), term_4.squeeze(1)


def best_input_set(
    cloud: Cloud, embeddings: Sequence[Tensor], min_conditioning: float = MIN_CONDITIONING
) -> InputChoice:
    """The input set with the smallest term 2 for two models, from their cloud of N points and f [N, M].

    Time is of order N^2 R, in blocks of rows. A set whose N has a relative smallest singular value under
    ``min_conditioning`` in either model is left out: a pivot whose best M inputs form one goes on to the next in
    order of their entries that keeps N regular. Raises SingularInputsError, with the shapes, if no set is left.
    """
    size = _common_dim(embeddings)
    pair = one_pair(0, 1, cloud.own.device)
    gaps = GapRows(cloud, pair)
    bounds = torch.cat([gaps.rows(rows)[0].topk(size, largest=False).values[:, -1] for rows in gaps.blocks()])
    smallest, best = torch.inf, None
    for pivot in bounds.argsort().tolist():
        if not bounds[pivot] < smallest:  # no later pivot can do better either
            break
        gap = gaps_from(cloud, pair, torch.tensor([pivot], device=bounds.device)).gap[0]
        chosen = _regular_prefix(gap.argsort()[: int((gap < smallest).sum())], pivot, embeddings, min_conditioning)
        if chosen is not None:
            smallest, best = float(gap[chosen[-1]]), chosen
    if best is None:
        raise _no_regular_set(embeddings, min_conditioning)
    return InputChoice(*input_terms(cloud, pair, best), best[None])


def sample_input_sets(samples: int, size: int, num_sets: int, seed: int) -> Tensor:
    """Disjoint random sets [num_sets, size] of the positions 0..samples-1, as the paper's code draws them.

    The stream is NumPy's legacy one, so that ``seed`` is that code's ``np.random.seed``. Raises ValueError for
    fewer than ``size * num_sets`` samples.
    """
    if samples < size * num_sets:
        raise ValueError(
            f"{num_sets} disjoint sets of {size} inputs need {num_sets * size} samples, but there are {samples}"
        )
    return torch.from_numpy(np.random.RandomState(seed).choice(samples, (num_sets, size), replace=False))


def best_of_sets(
    cloud: Cloud,
    pairs: Pairs,
    embeddings: Sequence[Tensor],
    sets: Tensor,
    min_conditioning: float = MIN_CONDITIONING,
) -> InputChoice:
    """Of the input sets [S, M + 1], that with the smallest term 2 for each of B pairs (i [B], j [B]) of P models.

    ``cloud`` has their N inputs and ``embeddings`` are f [N, M]. Sets are left out as in :func:`best_input_set`.
    """
    every, (term_2, term_4) = torch.arange(len(pairs[0]), device=sets.device), _terms_of_sets(cloud, pairs, sets)
    f = padded(embeddings)  # whose zero columns add no singular value: M is the pairs' own
    while True:
        least, index = term_2.min(1)
        if bool(least.isinf().any()):
            raise _no_regular_set(embeddings, min_conditioning)
        points = [f[models[:, None], sets[index]] for models in pairs]
        singular = torch.stack([_conditioning_of(x) < min_conditioning for x in points]).any(0)
        if not bool(singular.any()):
            return InputChoice(least, term_4[every, index], sets[index])
        term_2[every[singular], index[singular]] = torch.inf


def conditioning(f: Tensor, sets: Tensor) -> Tensor:
    """Smallest singular value of N relative to its largest, [S], for f [N, M] and input sets [S, m + 1]; m <= M."""
    return _conditioning_of(f[sets])


def _conditioning_of(points: Tensor) -> Tensor:
    singular = torch.linalg.svdvals(points[:, 1:] - points[:, :1])
    ratio: Tensor = singular[:, -1] / singular[:, 0].clamp(min=torch.finfo(points.dtype).tiny)
    return ratio


def _terms_of_sets(cloud: Cloud, pairs: Pairs, sets: Tensor) -> tuple[Tensor, Tensor]:
    """Terms 2 and 4 of each pair at each input set [S, m + 1], [B, S]."""
    points = Cloud(cloud.own[:, sets.T.flatten()], cloud.axes, cloud.offset)
    gap, s, t = gaps_in_sets(points, pairs, sets.shape[1])
    return gap.amax(1), (s - t).abs().amax(1)


def _regular_prefix(order: Tensor, pivot: int, embeddings: Sequence[Tensor], min_conditioning: float) -> Tensor | None:
    """The pivot and the first M inputs of the order that keep N regular, [M + 1]; None if there are not so many.

    Adding an input never raises the relative smallest singular value: who fails with some fails with more.
    """
    size = embeddings[0].shape[1]
    chosen = order.new_tensor([pivot])
    while len(order) and len(chosen) <= size:
        whole = torch.cat([chosen, order[: size + 1 - len(chosen)]])
        if len(whole) == size + 1 and _regular(whole[None], embeddings, min_conditioning):
            return whole
        trial = order[:_SETS_AT_ONCE]
        sets = torch.cat([chosen.expand(len(trial), -1), trial[:, None]], dim=1)
        passed = _regular(sets, embeddings, min_conditioning).nonzero()
        if len(passed):
            chosen, order = sets[passed[0, 0]], order[passed[0, 0] + 1 :]
        else:
            order = order[len(trial) :]
    return chosen if len(chosen) == size + 1 else None


def _regular(sets: Tensor, embeddings: Sequence[Tensor], min_conditioning: float) -> Tensor:
    return torch.stack([conditioning(f, sets) >= min_conditioning for f in embeddings]).all(0)


def _common_dim(embeddings: Sequence[Tensor]) -> int:
    """M of all models; ValueError where they differ or the inputs are fewer than M + 1."""
    shapes = [tuple(f.shape) for f in embeddings]
    if len({dim for _, dim in shapes}) > 1:
        raise ValueError(f"an input set has M + 1 inputs, but the embeddings are {shapes}: give the set")
    samples, dim = shapes[0]
    if samples <= dim:
        raise ValueError(f"an input set has M + 1 inputs, but the embeddings are {shapes}")
    return dim


def _no_regular_set(embeddings: Sequence[Tensor], min_conditioning: float) -> SingularInputsError:
    shapes = [tuple(f.shape) for f in embeddings]
    return SingularInputsError(
        f"no input set of the embeddings {shapes} has differences with a relative smallest singular value of at "
        f"least {min_conditioning:g} in every model: do they span their dimensions?"
    )


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
