"""Whether a reduction of hubness helps the prediction of the next token: accuracy, rank and likelihood under each.

A reduction is fitted on a bank of contexts and measured on others, best of other documents. Each is an inner product of
vectors with at most a coordinate more, so that ranks and likelihoods of renormalised scores come from blocks of scores.
A reduction is no gain here unless McNemar's test says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.hubness.analysis import HubnessReport, hubness_of_counts
from likeness.hubness.indices import k_occurrence
from likeness.hubness.reduction_base import HubnessReduction
from likeness.hubness.reductions import reduction
from likeness.language.context_visit import logit_blocks, with_bias
from likeness.neighbours.classification import McNemar, mcnemar
from likeness.neighbours.distances import unit_rows
from likeness.neighbours.exact import nearest_neighbours
from likeness.numerics import at_least_float32
from likeness.seeding import generator

REDUCTIONS = ("centre_g", "centre_f", "z_score", "pmi_0.1", "pmi_0.5", "pmi_1", "csls", "cosine", "euclidean")
_SPLIT = 104  # a tag of what is drawn


class Scores(NamedTuple):
    """Vectors whose inner product is the score of a token in a context, larger likelier."""

    contexts: Tensor  # [N, D]
    tokens: Tensor  # [V, D]


@dataclass(frozen=True, kw_only=True, eq=False)
class ReducedPredictions:
    """Of one way to score tokens, on the contexts that are tested."""

    name: str
    accuracy: float
    recall: float  # share of the contexts whose next token is among the k first
    reciprocal_rank: float
    nll: float  # of the softmax of the scores, nats a token
    hubness: HubnessReport
    against_none: McNemar | None  # None for "none" itself


@torch.no_grad()
def reduced_predictions(
    bank: Tensor,
    f: Tensor,
    g: Tensor,
    next_tokens: Tensor,
    *,
    bias: Tensor | None = None,
    reductions: Sequence[str | HubnessReduction] = REDUCTIONS,
    k: int = 10,
) -> list[ReducedPredictions]:
    """Next-token predictions without a reduction ("none", the first of the answer) and with each.

    Args:
        bank: [B, M] contexts on which reductions are fitted.
        f: [N, M] contexts on which they are measured, of other documents.
        g: [V, M] of the tokens.
        next_tokens: [N].
        bias: [V] of the head.
        reductions: names of REDUCTIONS, or reductions of hubness that are inner products, by name or as instances.
        k: of the recall and of hubness.

    Raises ValueError for a name that is neither and NotImplementedError for a reduction that is no inner product.
    """
    bank, _ = with_bias(bank, g, bias)
    f, g = with_bias(f, g, bias)
    baseline, right = _measured("none", Scores(f, g), next_tokens, k, None)
    answers = [baseline]
    for method in reductions:
        name = method if isinstance(method, str) else method.name
        answers.append(_measured(name, scores_of(method, bank, f, g), next_tokens, k, right)[0])
    return answers


def scores_of(method: str | HubnessReduction, bank: Tensor, f: Tensor, g: Tensor) -> Scores:
    """The scores of a reduction.

    centre_g takes the mean from g, a gauge that changes nothing; centre_f takes from each logit its mean over the bank,
    z_score divides by its deviation too; pmi_a takes a log mean p(y | bank), at a = 1 the pointwise mutual information;
    euclidean is 2 f . g - |g|^2.
    """
    own: dict[str, Callable[[], Scores]] = {
        "centre_g": lambda: Scores(f, g - g.mean(0)),
        "centre_f": lambda: Scores(f - bank.mean(0), g),
        "z_score": lambda: _standardised(bank, f, g),
        "cosine": lambda: Scores(f, unit_rows(g, "tokens")),
        "euclidean": lambda: _shifted(f, 2 * g, -g.square().sum(1)),
    }
    if isinstance(method, str) and method in own:
        return own[method]()
    if isinstance(method, str) and method.startswith("pmi_"):
        return _shifted(f, g, -float(method.removeprefix("pmi_")) * log_mean_probability(bank, g))
    fitted = reduction(method)
    vectors = fitted.fit(g, bank if fitted.takes_bank else None).augment()
    return Scores(vectors.queries(f), vectors.index)


def log_mean_probability(bank: Tensor, g: Tensor) -> Tensor:
    """log of the mean of p(y | x) over contexts [B, M], [V] in float64."""
    log_sum = torch.full((len(g),), -torch.inf, dtype=torch.float64, device=g.device)
    for _, logits in logit_blocks(bank, g):
        log_sum = torch.logaddexp(log_sum, logits.double().log_softmax(1).logsumexp(0))
    return log_sum - math.log(len(bank))


def split_documents(documents: Tensor, share: float = 0.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of two sets of documents, ascending: a bank of about this share of the documents, and a test set.

    Raises ValueError for fewer than two documents.
    """
    names, group = torch.unique(documents, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"a bank and a test set need two documents at least, got {len(names)}")
    taken = min(max(1, round(share * len(names))), len(names) - 1)
    in_bank = torch.zeros(len(names), dtype=torch.bool)
    in_bank[torch.randperm(len(names), generator=generator(seed, _SPLIT))[:taken]] = True
    return in_bank[group].nonzero().flatten(), (~in_bank[group]).nonzero().flatten()


def _standardised(bank: Tensor, f: Tensor, g: Tensor) -> Scores:
    """Logits less their mean over the bank, divided by their deviation, which are moments of the bank alone."""
    wide, mean = g.double(), bank.double().mean(0)
    covariance = torch.cov(bank.double().T, correction=0).reshape(2 * mean.shape)
    deviation = ((wide @ covariance) * wide).sum(1).clamp(min=1e-12 * float(covariance.abs().max())).sqrt()
    return Scores((f - mean).to(f.dtype), (wide / deviation[:, None]).to(g.dtype))


def _shifted(f: Tensor, g: Tensor, shift: Tensor) -> Scores:
    return Scores(*with_bias(f, g, shift))


def _measured(
    name: str, scores: Scores, next_tokens: Tensor, k: int, baseline: Tensor | None
) -> tuple[ReducedPredictions, Tensor]:
    """What is said of a way to score, and in which contexts its likeliest token is the next one."""
    ranks, log_p = _visited(scores, next_tokens)
    ids = nearest_neighbours(scores.tokens, k, metric="dot", queries=scores.contexts).ids.cpu()
    right = ranks == 1
    answer = ReducedPredictions(
        name=name,
        accuracy=float(right.double().mean()),
        recall=float((ranks <= k).double().mean()),
        reciprocal_rank=float((1 / ranks.double()).mean()),
        nll=-float(log_p.mean()),
        hubness=hubness_of_counts(k_occurrence(ids, len(scores.tokens)), len(ids), k),
        against_none=None if baseline is None else mcnemar(baseline, right),
    )
    return answer, right


def _visited(scores: Scores, next_tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Rank from 1 of the next token, equal scores by id, and the log of the softmax of the scores at it; [N] each."""
    ranks, log_p = [], []
    number = torch.arange(len(scores.tokens), device=scores.tokens.device)
    for rows, block in logit_blocks(at_least_float32(scores.contexts), scores.tokens):
        y = next_tokens[rows].to(block.device)[:, None]
        own = block.gather(1, y)
        ranks.append(1 + ((block > own) | ((block == own) & (number < y))).sum(1))
        log_p.append(own[:, 0].double() - block.double().logsumexp(1))
    return torch.cat(ranks).cpu(), torch.cat(log_p).cpu()
