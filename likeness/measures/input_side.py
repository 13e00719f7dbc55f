"""The input side of d_LLV: terms 2 and 4, and the set of inputs that makes term 2 smallest.

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

from likeness.measures.cloud import Cloud, Pairs, one_pair, padded
from likeness.measures.standardised_gap import GapRows, gaps_from, gaps_in_sets

MIN_CONDITIONING = 1e-6  # smallest singular value of N relative to its largest: below, N is numerically singular
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
