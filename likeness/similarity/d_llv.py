"""d_LLV, the log-likelihood variance distance between softmax models.

Nielsen, Marconato, Dittadi and Gresele 2025 (arXiv 2506.03784), Def 4.4:

    d_LLV = max(term 1, term 2, lambda term 3, lambda term 4),

at the choice of labels with the smallest term 1 and the set of inputs with the smallest term 2. It is 0 exactly for
equivalent models, f = A f' and g = A^-T g' + v.

A choice of labels is a pivot y0 and a label that is left out; the others, S, are compared with the pivot:

    sigma(y) = sd_x[lp(y|x) - lp(y0|x)]
    term 1 = max over y in S of max(sd_x[lp(y|x) / sigma(y) - lp'(y|x) / sigma'(y)], the same of y0)
    term 3 = max over y in S of |sigma(y) - sigma'(y)|

A set of inputs is a pivot x0 and M inputs x1..xM whose differences from the pivot, the M x M matrix
N = [f(x1) - f(x0) .. f(xM) - f(x0)], are invertible in both models:

    phi(j) = sd_y[lp(y|xj) - lp(y|x0)], over all labels
    term 2 = max_j max(sd_y[lp(y|xj) / phi(j) - lp'(y|xj) / phi'(j)], the same of x0)
    term 4 = max_j |phi(j) - phi'(j)|

The paper tries every choice of labels, and samples disjoint sets of inputs. But an entry depends on the pivot and one
other label or input alone. So the smallest term 1 is the smallest second-largest entry of a row, with the largest one
left out, and no term 2 is below the smallest M-th smallest entry of a row (derived, not in the paper).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.similarity.cloud import Cloud, GapRows, Pairs, gaps_from, gaps_in_sets, one_pair, padded
from likeness.similarity.input_sets import RegularSets, conditioning_of, sample_input_sets
from likeness.similarity.options import MIN_CONDITIONING, ComparisonOptions
from likeness.similarity.softmax_models import LabelVectors, SoftmaxModels
from likeness.similarity.undefined import ConstantLogRatioError, SingularInputsError, UndefinedError

ZERO = 1e-12  # what rounding leaves of equivalent models: all their choices tie
TIE_TOLERANCE = 1e-6  # relative: the entries are symmetric, so that pivots often share their second-largest one
MAX_TIES = 64  # pivots of equivalent models that are looked at
_FEW_LABELS = 4096  # so few that all rows are looked at
_ROWS_AT_ONCE = 256


class LabelChoice(NamedTuple):
    """The minimisers of term 1 for B pairs of models."""

    term_1: Tensor  # [B]
    pivot: Tensor  # [B], the smallest among ties
    left_out: Tensor  # [B], the smallest among those of this pivot
    ties: Tensor  # [T, 3] rows (pair, pivot, left out), ascending; at most MAX_TIES of each pair
    lower: Tensor  # [B] what no choice is under: term_1, unless the search was cut short
    rows: int  # pivots whose entries were all looked at, of the pair with most

    def named(self, vectors: LabelVectors) -> "LabelChoice":
        """The same choice by the labels' own numbers."""
        ids = vectors.ids
        ties = torch.column_stack([self.ties[:, 0], ids[self.ties[:, 1:]]])
        return self._replace(pivot=ids[self.pivot], left_out=ids[self.left_out], ties=ties)


class LabelTerms(NamedTuple):
    """Terms 1 and 3 at given choices, [B]."""

    term_1: Tensor
    term_3: Tensor


class InputChoice(NamedTuple):
    """Input sets of B pairs of models."""

    term_2: Tensor  # [B]
    term_4: Tensor  # [B]
    inputs: Tensor  # [B, M + 1] positions in the sample, the pivot first
    search: tuple[str, ...]  # of each pair: exact, sampled, given, or bounded where an exact one was cut short


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

    Raises ValueError as :meth:`SoftmaxModels.of` does; UndefinedError where K < 3 or N <= M, where every choice
    compares labels whose log-ratio is constant, where no set of inputs spans both representations, and where M differs
    unless the options give an input set.

    Example:
        >>> import torch
        >>> f, g = torch.randn(50, 2, generator=torch.manual_seed(0)).double(), torch.eye(5, 2).double()
        >>> a = torch.tensor([[2.0, 1.0], [0.0, 1.0]]).double()
        >>> bool(d_llv(f, g, f @ a.T, g @ a.inverse() + 3).d_llv < 1e-12)  # the same distribution
        True
        >>> bool(d_llv(f, g, f @ a.T, g).d_llv > 0.1)
        True
    """
    options = options or ComparisonOptions()
    models = SoftmaxModels.of([f1, f2], [g1, g2], tau=options.span_tolerance)
    return d_llv_of_pairs(models, one_pair(0, 1, models.embeddings[0].device), options)


def d_llv_of_pairs(models: SoftmaxModels, pairs: Pairs, options: ComparisonOptions) -> LogLikelihoodVariance:
    """d_LLV of the pairs (i [B], j [B]) of the models, in which the same labels are equal; raises as :func:`d_llv`."""
    vectors = models.searched_labels(int(pairs[0][0]), int(pairs[1][0]))
    labels, terms = choose_label_terms(vectors, pairs, options)
    inputs = choose_input_terms(models, pairs, options)
    return LogLikelihoodVariance(
        combine(terms, inputs, options),
        terms.term_1,
        inputs.term_2,
        terms.term_3,
        inputs.term_4,
        labels.named(vectors),
        inputs.inputs,
    )


def combine(labels: LabelTerms, inputs: InputChoice, options: ComparisonOptions) -> Tensor:
    """d_LLV [B] from the terms of both sides."""
    scaled = (options.lambda_ * labels.term_3, options.lambda_ * inputs.term_4)
    terms = torch.stack([labels.term_1, inputs.term_2, *scaled])
    return terms.amax(0) if options.combine == "max" else terms.sum(0)


def choose_label_terms(
    vectors: LabelVectors, pairs: Pairs, options: ComparisonOptions
) -> tuple[LabelChoice, LabelTerms]:
    """The choice of labels, and terms 1 and 3 there, for B pairs of models; M may differ."""
    if options.label_choice is None:
        choice = choose_labels(vectors, pairs)
        terms = label_terms(vectors, pairs, choice.pivot, choice.left_out)
        return choice, terms._replace(term_1=choice.term_1)
    given = _given_labels(options.label_choice, vectors).to(pairs[0].device)
    number = torch.arange(len(pairs[0]), device=given.device)
    pivot, left_out = given.expand(len(number), 2).unbind(1)
    terms = label_terms(vectors, pairs, pivot, left_out)
    ties = torch.stack([number, pivot, left_out], dim=1)
    return LabelChoice(terms.term_1, pivot, left_out, ties, terms.term_1, 1), terms


def choose_labels(vectors: LabelVectors, pairs: Pairs, max_rows: int | None = None) -> LabelChoice:
    """The pivot and left-out label with the smallest term 1, for B pairs of models.

    Exact; with many labels the rows of hopeless pivots are not computed. With ``max_rows`` at most so many rows are,
    and the answer is the best of these pivots; ``lower`` is what no pivot is under. Among choices within 1e-6 of each
    other, or under 1e-12, the smallest pivot is taken and then the smallest left-out label; ``ties`` holds the others.
    A choice that compares labels whose log-ratio is constant over the inputs has no term 1, and is none.

    Raises:
        UndefinedError: for fewer than 3 labels; ConstantLogRatioError, naming labels and model, if no choice is left.
    """
    count, labels = len(pairs[0]), vectors.num_labels
    if labels < 3:
        raise UndefinedError(f"d_LLV needs a pivot, a left-out and a compared label, but there are {labels} labels")
    # The two largest entries of each row.
    if labels <= _FEW_LABELS and max_rows is None:
        maxima = maxima_of_all_pivots(vectors, pairs)
    else:
        each = [
            maxima_of_promising_pivots(vectors, (i, j), max_rows)
            for i, j in zip(*(torch.split(x, 1) for x in pairs), strict=True)
        ]
        maxima = RowMaxima(*(torch.cat(fields) for fields in zip(*each, strict=True)))
    term_1 = maxima.largest[..., 1].amin(1)
    if bool(term_1.isinf().any()):
        raise constant_log_ratio(vectors, pairs, int(term_1.isinf().nonzero()[0]), 0)
    # Every choice that is as good, and the first of each pair.
    ties = _ties(maxima, threshold(term_1))
    start = torch.searchsorted(ties[:, 0].contiguous(), torch.arange(count, device=ties.device))
    rows = int(maxima.largest[..., 1].isfinite().sum(1).max())
    return LabelChoice(term_1, ties[start, 1], ties[start, 2], ties, maxima.lower.amin(1).minimum(term_1), rows)


def label_terms(vectors: LabelVectors, pairs: Pairs, pivot: Tensor, left_out: Tensor) -> LabelTerms:
    """Terms 1 and 3 at pivots and left-out labels [B], for B pairs of models.

    Raises ConstantLogRatioError naming two labels that are compared and the model.
    """
    gap, s, t = gaps_from(vectors.cloud, pairs, pivot)
    labels = torch.arange(gap.shape[1], device=gap.device)
    compared = (labels != pivot[:, None]) & (labels != left_out[:, None])
    for pair, label in (gap.isinf() & compared).nonzero().tolist():
        raise constant_log_ratio(vectors, pairs, pair, int(pivot[pair]), label)
    term_1, term_3 = (entries.masked_fill(~compared, -torch.inf).amax(1) for entries in (gap, (s - t).abs()))
    return LabelTerms(term_1, term_3)


def term_1_matrix(vectors: LabelVectors, first: int = 0, second: int = 1) -> tuple[Tensor, Tensor]:
    """The entries of terms 1 and 3 for pivot y0 and label y of two of the models: T1 and T3, [K, K], symmetric.

    The diagonal is 0; inf where a log-ratio is constant.
    """
    pairs = one_pair(first, second, vectors.mean.device)
    labels = torch.arange(vectors.num_labels, device=vectors.mean.device)
    entries = entries_of_term_1(GapRows(vectors.cloud, pairs), labels)[0]
    own = vectors.cloud.own * vectors.cloud.size[:, None, None]
    s, t = (torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") for x in own[[first, second]])
    return entries.fill_diagonal_(0), (s - t).abs()


def entries_of_term_1(gaps: GapRows, pivots: Tensor) -> Tensor:
    """Entries of term 1 for these pivots, [B, rows, K]: -inf at the pivots themselves, inf where one is undefined."""
    entries = gaps.rows(pivots)
    entries.scatter_(2, pivots.expand(len(entries), -1)[..., None], -torch.inf)
    return entries


def constant_log_ratio(
    vectors: LabelVectors, pairs: Pairs, pair: int, pivot: int, label: int | None = None
) -> ConstantLogRatioError:
    """The error for one of the pairs, naming the model whose log-ratio of the two labels varies less.

    By default of the label that varies least with the pivot.
    """
    models = [int(index[pair]) for index in pairs]
    own = vectors.cloud.own
    deviations = torch.stack([(own[model] - own[model, pivot]).norm(dim=1) for model in models])
    deviations[:, pivot] = torch.inf
    label = int(deviations.amin(0).argmin()) if label is None else label
    flat = int(deviations[:, label].argmin())
    value = float(deviations[flat, label] * vectors.cloud.size[models[flat]])
    pivot, label = vectors.ids[[pivot, label]].tolist()
    return ConstantLogRatioError(
        f"the log-ratio of labels {pivot} and {label} of model {vectors.names[models[flat]]!r} is constant over the "
        f"inputs (standard deviation {value:.3g}), so d_LLV is undefined"
    )


class RowMaxima(NamedTuple):
    """For B pairs of models and each of K pivots; inf where the pivot was ruled out."""

    largest: Tensor  # [B, K, 2] the two largest entries
    worst: Tensor  # [B, K] the label of the largest one
    lower: Tensor  # [B, K] what the second-largest one is not under, also where it was not computed


def threshold(term_1: Tensor) -> Tensor:
    """Up to where choices tie with the best one, [B]."""
    return (term_1 * (1 + TIE_TOLERANCE)).clamp(min=ZERO)


def maxima_of_all_pivots(vectors: LabelVectors, pairs: Pairs) -> RowMaxima:
    """Every entry is looked at, in blocks of rows."""
    gaps = GapRows(vectors.cloud, pairs)
    index = torch.arange(vectors.num_labels, device=vectors.mean.device)
    tops = [entries_of_term_1(gaps, index[rows]).topk(2, dim=2) for rows in gaps.blocks()]
    values, labels = zip(*tops, strict=True)
    largest = torch.cat(values, dim=1)
    return RowMaxima(largest, torch.cat(labels, dim=1)[..., 0], largest[..., 1])


def maxima_of_promising_pivots(vectors: LabelVectors, pair: Pairs, max_rows: int | None = None) -> RowMaxima:
    """For one pair of models with many labels: as many rows as it takes to rule all other pivots out, or ``max_rows``.

    Entries are symmetric, so that a row that is known says something of every other one: its second-largest entry is
    at least the second-largest met so far. Most is learnt from the rows of labels with large entries.
    """
    labels, device = vectors.num_labels, vectors.mean.device
    gaps = GapRows(vectors.cloud, pair)
    largest = vectors.mean.new_full((labels, 2), torch.inf)  # of rows that are known
    worst = torch.zeros(labels, dtype=torch.long, device=device)
    met = vectors.mean.new_full((labels, 2), -torch.inf)  # of all rows, in known columns
    unknown = torch.ones(labels, dtype=torch.bool, device=device)
    left = labels if max_rows is None else max_rows
    rows = torch.arange(min(_ROWS_AT_ONCE, labels, left), device=device)
    while len(rows):
        entries = entries_of_term_1(gaps, rows)[0]
        top = entries.topk(2, dim=1)
        largest[rows], worst[rows], unknown[rows] = top.values, top.indices[:, 0], False
        met = torch.cat([met, entries.topk(min(2, len(rows)), dim=0).values.T], dim=1).topk(2, dim=1).values
        if int((largest[:, 1] <= ZERO).sum()) >= MAX_TIES:
            break
        # The bound of a row is the second-largest entry met in it.
        possible = unknown & (met[:, 1] <= threshold(largest[:, 1].amin()))
        left -= len(rows)
        rows = _next_rows(met, unknown, possible)[:left]
    return RowMaxima(largest[None], worst[None], torch.where(unknown, met[:, 1], largest[:, 1])[None])


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


def _ties(maxima: RowMaxima, limit: Tensor) -> Tensor:
    """Choices [T, 3] of (pair, pivot, left out) whose term 1 is at most the limit [B]."""
    largest, worst, _ = maxima
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


def _given_labels(choice: tuple[int, int], vectors: LabelVectors) -> Tensor:
    num_labels = vectors.num_labels if vectors.equal is None else len(vectors.equal)
    given = torch.tensor(choice)
    if given[0] == given[1] or not all(0 <= label < num_labels for label in choice):
        raise ValueError(f"label_choice must be two of the labels 0..{num_labels - 1}, got {choice}")
    return given if vectors.equal is None else torch.searchsorted(vectors.ids, vectors.equal[given])


def choose_input_terms(models: SoftmaxModels, pairs: Pairs, options: ComparisonOptions) -> InputChoice:
    """The set of inputs, and terms 2 and 4 there, for B pairs of models of one M, unless the options give the set."""
    if options.input_set is not None:
        return _given_inputs(models, pairs, options.input_set)
    bare, samples = models.bare_embeddings, len(models.embeddings[0])
    compared = torch.unique(torch.cat(pairs)).tolist()
    if len({models.given_dims[model] for model in compared}) > 1:
        shapes = [(samples, models.given_dims[model]) for model in compared]
        raise UndefinedError(f"an input set has M + 1 inputs, but the embeddings are {shapes}: give the set")
    size = _smallest_dim([bare[model] for model in compared]) + 1
    if options.searches_all(samples):
        return best_input_sets(models.inputs, pairs, bare, options.min_conditioning)
    sets = sample_input_sets(samples, size, options.sampled_sets(samples, size), options.seed).to(pairs[0].device)
    return best_of_sets(models.inputs, pairs, bare, sets, options.min_conditioning)


def _given_inputs(models: SoftmaxModels, pairs: Pairs, input_set: Sequence[int]) -> InputChoice:
    samples = len(models.embeddings[0])
    if len(input_set) < 2 or not all(0 <= position < samples for position in input_set):
        raise ValueError(f"input_set must be at least two of the positions 0..{samples - 1}, got {tuple(input_set)}")
    inputs = torch.tensor(input_set, device=pairs[0].device)
    term_2, term_4 = input_terms(models.inputs, pairs, inputs)
    if bool(term_2.isinf().any()):
        raise SingularInputsError(f"the pivot of input_set {tuple(input_set)} coincides in f with another input")
    return InputChoice(term_2, term_4, inputs.expand(len(term_2), -1), ("given",) * len(term_2))


def input_terms(cloud: Cloud, pairs: Pairs, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Terms 2 and 4 at an input set [m + 1], the pivot first, for B pairs of the models with this cloud; [B].

    inf where the pivot coincides with another input.
    """
    term_2, term_4 = _terms_of_sets(cloud, pairs, inputs[None])
    return term_2.squeeze(1), term_4.squeeze(1)


def best_input_sets(
    cloud: Cloud, pairs: Pairs, embeddings: Sequence[Tensor], min_conditioning: float = MIN_CONDITIONING
) -> InputChoice:
    """The input set with the smallest term 2 for each of B pairs (i [B], j [B]) of P models.

    ``cloud`` has their N inputs and ``embeddings`` are f [N, M]. Where M differs, a set has as many inputs besides the
    pivot as the smallest M (derived, not in the paper). Of all sets whose N has a relative smallest singular
    value of at least ``min_conditioning`` in both models. Time is of order N^2 R a pair, in blocks of rows, as long as
    the nearest inputs of good pivots form such sets; where they do not, sets are tried in order, and after 2^19 of
    them, or 2^37 multiplications, the answer is the best so far, its search "bounded". Raises SingularInputsError,
    with the shapes, if no set is left.
    """
    size = _smallest_dim([embeddings[model] for model in torch.unique(torch.cat(pairs)).tolist()])
    # No set with a pivot is better than the M-th smallest entry of its row.
    gaps = GapRows(cloud, pairs)
    bounds = torch.cat([gaps.rows(rows).topk(size, largest=False).values[..., -1] for rows in gaps.blocks()], dim=1)
    found = [
        _best_input_set(cloud.of_models((i, j)), own, [embeddings[i], embeddings[j]], min_conditioning)
        for i, j, own in zip(*(index.tolist() for index in pairs), bounds, strict=True)
    ]
    term_2, term_4, inputs, searches = zip(*found, strict=True)
    return InputChoice(torch.cat(term_2), torch.cat(term_4), torch.cat(inputs), sum(searches, ()))


def _best_input_set(cloud: Cloud, bounds: Tensor, embeddings: Sequence[Tensor], min_conditioning: float) -> InputChoice:
    """Of two models, from what no set with each pivot can be under, [N]."""
    pair = one_pair(0, 1, bounds.device)
    smallest, best, sets = torch.inf, None, RegularSets(embeddings, min_conditioning)
    for pivot in bounds.argsort().tolist():
        if not bounds[pivot] < smallest or (best is not None and sets.bounded):  # no later pivot can or may do better
            break
        gap = gaps_from(cloud, pair, torch.tensor([pivot], device=bounds.device)).gap[0]
        chosen = sets.nearest(pivot, gap.argsort()[: int((gap < smallest).sum())])
        if chosen is not None:
            smallest, best = float(gap[chosen[1:]].amax()), chosen
    if best is None:
        raise _no_regular_set(embeddings, min_conditioning, sets.bounded)
    search = "bounded" if sets.bounded else "exact"
    return InputChoice(*input_terms(cloud, pair, best), best[None], (search,))


def best_of_sets(
    cloud: Cloud,
    pairs: Pairs,
    embeddings: Sequence[Tensor],
    sets: Tensor,
    min_conditioning: float = MIN_CONDITIONING,
) -> InputChoice:
    """Of the input sets [S, M + 1], that with the smallest term 2 for each of B pairs (i [B], j [B]) of P models.

    ``cloud`` has their N inputs and ``embeddings`` are f [N, M]. Sets are left out as in :func:`best_input_sets`.
    """
    every, (term_2, term_4) = torch.arange(len(pairs[0]), device=sets.device), _terms_of_sets(cloud, pairs, sets)
    f = padded(embeddings)  # whose zero columns add no singular value: M is the pairs' own
    while True:
        least, index = term_2.min(1)
        if bool(least.isinf().any()):
            pair = int(least.isinf().nonzero()[0])
            raise _no_regular_set([embeddings[int(models[pair])] for models in pairs], min_conditioning)
        points = [f[models[:, None], sets[index]] for models in pairs]
        singular = torch.stack([conditioning_of(x) < min_conditioning for x in points]).any(0)
        if not bool(singular.any()):
            return InputChoice(least, term_4[every, index], sets[index], ("sampled",) * len(every))
        term_2[every[singular], index[singular]] = torch.inf


def _terms_of_sets(cloud: Cloud, pairs: Pairs, sets: Tensor) -> tuple[Tensor, Tensor]:
    """Terms 2 and 4 of each pair at each input set [S, m + 1], [B, S]."""
    gap, s, t = gaps_in_sets(cloud.at(sets.T.flatten()), pairs, sets.shape[1])
    return gap.amax(1), (s - t).abs().amax(1)


def _smallest_dim(embeddings: Sequence[Tensor]) -> int:
    """The smallest M; UndefinedError where the inputs are fewer than M + 1."""
    shapes = [tuple(f.shape) for f in embeddings]
    dim = min(dim for _, dim in shapes)
    if shapes[0][0] <= dim:
        raise UndefinedError(f"an input set has M + 1 inputs, but the embeddings are {shapes}")
    return dim


def _no_regular_set(embeddings: Sequence[Tensor], least: float, bounded: bool = False) -> SingularInputsError:
    shapes = [tuple(f.shape) for f in embeddings]
    tried = " among those that were tried" if bounded else ""
    return SingularInputsError(
        f"no input set of the embeddings {shapes}{tried} has differences with a relative smallest singular value of at "
        f"least {least:g} in every model: do they span their dimensions?"
    )
