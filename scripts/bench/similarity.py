"""Measures of representational similarity against a plain loop over the papers' definitions.

The slow contestant has the measures between two softmax models as the papers define them, with NumPy and scikit-learn.
It is vectorised over inputs and labels, as one writes it, and takes one pair of models, one pivot, one input set and
one label subset at a time.
"""

from collections.abc import Callable
from itertools import combinations
from math import comb
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from likeness.similarity.comparison import compare_softmax_models
from likeness.similarity.options import ComparisonOptions
from likeness.similarity.pairwise import compare_all_pairs
from scripts.bench.timing import Contestant, Ratios, RatiosAndMemory, interleaved, peak_of

Array = NDArray[np.float64]
RATIO = 100.0
SECONDS = 0.25  # for all pairs of 20 models
GIGABYTES = 8.0
ONE_PAIR = "one pair, K = 100, M = 10, N = 10,000"
LARGE = "one pair, K = 50,000, M = 1,024, N = 2,048"


def similarity(
    models: int = 20,
    repeats: int = 3,
    one_pair: bool = True,
    large: bool = False,
    device: Literal["cpu", "cuda"] = "cpu",
) -> RatiosAndMemory:
    """Seconds for every measure but the exact input search, all pairs at once and pair by pair.

    Args:
        models: Models of which all pairs are compared.
        repeats: Rounds that are timed.
        one_pair: Also compare two models with 100 labels on 10,000 inputs.
        large: Also measure the memory that two models with 50,000 labels take, exact search included: for minutes.
        device: Where the batched measures run.
    """
    siblings = f"all {models * (models - 1) // 2} pairs of {models} models, K = 6, M = 2, N = 2,000"
    comparisons = {siblings: _contest(models, 2000, 6, 2, repeats, device)}
    if one_pair:
        comparisons[ONE_PAIR] = _contest(2, 10_000, 100, 10, repeats, device)
    ratios = Ratios(
        f"similarity, float64, {device}",
        comparisons,
        required=dict.fromkeys(comparisons, RATIO),
        allowed={siblings: SECONDS} if models == 20 else {},
    )
    return RatiosAndMemory(ratios, LARGE, GIGABYTES, peak_of(compare_large_models) if large else None)


def related_models(count: int, samples: int, labels: int, dim: int) -> tuple[Tensor, Tensor]:
    """f [P, N, M] and g [P, K, M] of models that share half of their variance."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(samples, dim), (labels, dim)]
    common = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    own = [torch.randn(count, *shape, generator=generator, dtype=torch.float64) for shape in shapes]
    f, g = (a + b for a, b in zip(common, own, strict=True))
    return f, g


def compare_large_models() -> None:
    """Two models of the size of a language model's head, with every measure and search."""
    f, g = related_models(2, 2048, 50_000, 1024)
    compare_softmax_models(f[0], g[0], f[1], g[1])


def _contest(
    count: int, samples: int, labels: int, dim: int, repeats: int, device: str
) -> tuple[Contestant, Contestant]:
    f, g = related_models(count, samples, labels, dim)
    work: dict[str, Callable[[], object]] = {
        "NumPy and scikit-learn, pair by pair": lambda: _one_by_one(f, g),
        "all pairs at once": lambda: _at_once(f.to(device), g.to(device)),
    }
    slow, fast = interleaved(work, repeats, device, at_least=0.5)
    return slow, fast


def _at_once(f: Tensor, g: Tensor) -> dict[str, Tensor]:
    return compare_all_pairs(f, g, options=ComparisonOptions(search="sampled"))


def _one_by_one(f: Tensor, g: Tensor) -> list[dict[str, float]]:
    count = len(f)
    arrays = f.numpy(), g.numpy()
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    return [plain_comparison(*(x[k] for k in pair for x in arrays)) for pair in pairs]


def plain_comparison(
    f1: Array, g1: Array, f2: Array, g2: Array, num_samples: int = 200, max_subsets: int = 5000, num_subsets: int = 200
) -> dict[str, float]:
    """By the names of :func:`likeness.similarity.pairwise.compare_all_pairs`; "reversed" has model 2 first."""
    from scipy.special import log_softmax

    lp1, lp2 = log_softmax(f1 @ g1.T, axis=1), log_softmax(f2 @ g2.T, axis=1)
    dim = f1.shape[1]
    terms, ties = choose_label_terms(lp1, lp2)
    input_terms, inputs = choose_input_terms(lp1, lp2, dim, num_samples)
    d_svd_f = [max_d_svd_f(f1, g1, f2, g2, *tie, max_subsets, num_subsets) for tie in ties]
    x0, xs = inputs[0], inputs[1:]
    d_svd_g = 1 - m_svd(g1 @ (f1[xs] - f1[x0]).T, g2 @ (f2[xs] - f2[x0]).T)
    return {
        **predictions(lp1, lp2),
        **terms,
        **input_terms,
        "d_llv": max(terms["term_1"], input_terms["term_2"], 1e-5 * terms["term_3"], 1e-5 * input_terms["term_4"]),
        "max_d_svd_f": d_svd_f[0],
        "max_d_svd_f_of_ties": max(d_svd_f),
        "certificate": certificate(lp1, lp2, *ties[0], dim),
        "d_svd_g": d_svd_g,
        "d_fg": max(d_svd_f[0], d_svd_g),
        "m_cca_f": m_cca(f1, f2),
        "m_cca_g": m_cca(g1, g2),
        **logit_distances(f1, g1, f2, g2),
        **{f"{name}, reversed": value for name, value in logit_distances(f2, g2, f1, g1).items()},
    }


def predictions(lp1: Array, lp2: Array) -> dict[str, float]:
    """KL(1 || 2), Jensen-Shannon and total variation, and how often the same label is preferred."""
    p1, p2 = np.exp(lp1), np.exp(lp2)
    middle = np.logaddexp(lp1, lp2) - np.log(2)
    return {
        "kl": float((p1 * (lp1 - lp2)).sum(1).mean()),
        "kl, reversed": float((p2 * (lp2 - lp1)).sum(1).mean()),
        "js": float((p1 * (lp1 - middle) + p2 * (lp2 - middle)).sum(1).mean() / 2),
        "total_variation": float(np.abs(p1 - p2).sum(1).mean() / 2),
        "agreement": float((lp1.argmax(1) == lp2.argmax(1)).mean()),
    }


def choose_label_terms(lp1: Array, lp2: Array) -> tuple[dict[str, float], list[tuple[int, int]]]:
    """Terms 1 and 3 of d_LLV at the pivot and left-out label with the smallest term 1, by trying all; and its ties."""
    labels = lp1.shape[1]
    found: dict[tuple[int, int], dict[str, float]] = {}
    for pivot in range(labels):
        with np.errstate(divide="ignore", invalid="ignore"):
            entries, differences = standardised(lp1, lp2, pivot)
        for left_out in range(labels):
            if left_out == pivot:
                continue
            compared = np.setdiff1d(np.arange(labels), [pivot, left_out])
            terms = {"term_1": float(entries[compared].max()), "term_3": float(differences[compared].max())}
            found[pivot, left_out] = terms
    best = min(terms["term_1"] for terms in found.values())
    ties = [choice for choice, terms in found.items() if terms["term_1"] <= best * (1 + 1e-6)]
    return {"term_1": best, "term_3": found[ties[0]]["term_3"]}, ties


def choose_input_terms(
    lp1: Array, lp2: Array, dim: int, num_samples: int
) -> tuple[dict[str, float], NDArray[np.int64]]:
    """Terms 2 and 4 of d_LLV at the disjoint random input set with the smallest term 2."""
    sets = np.random.RandomState(0).choice(len(lp1), (num_samples, dim + 1), replace=False)
    best, terms, chosen = np.inf, {}, sets[0]
    for inputs in sets:
        with np.errstate(divide="ignore", invalid="ignore"):
            entries, differences = standardised(lp1[inputs].T, lp2[inputs].T, 0)
        if entries[1:].max() < best:
            best, chosen = entries[1:].max(), inputs
            terms = {"term_2": float(best), "term_4": float(differences[1:].max())}
    return terms, chosen


def standardised(lp1: Array, lp2: Array, pivot: int) -> tuple[Array, Array]:
    """Of [n, m] against one column: entries of the terms 1 or 2, and of 3 or 4, [m]; nan for the column itself."""
    pivot1, pivot2 = lp1[:, pivot : pivot + 1], lp2[:, pivot : pivot + 1]
    sd1, sd2 = (lp1 - pivot1).std(0, ddof=1), (lp2 - pivot2).std(0, ddof=1)
    own = (lp1 / sd1 - lp2 / sd2).std(0, ddof=1)
    of_pivot = (pivot1 / sd1 - pivot2 / sd2).std(0, ddof=1)
    return np.maximum(own, of_pivot), np.abs(sd1 - sd2)


def max_d_svd_f(
    f1: Array, g1: Array, f2: Array, g2: Array, pivot: int, left_out: int, max_subsets: int, num_subsets: int
) -> float:
    """Over all label subsets, or random ones where they are too many."""
    dim = f1.shape[1]
    free = np.setdiff1d(np.arange(len(g1)), [pivot, left_out])
    subsets: Any = combinations(free, dim)
    if comb(len(free), dim) > max_subsets:
        generator = np.random.default_rng(0)
        subsets = (generator.choice(free, dim, replace=False) for _ in range(num_subsets))
    values = []
    for subset in subsets:
        l1, l2 = g1[list(subset)] - g1[pivot], g2[list(subset)] - g2[pivot]
        values.append(1 - m_svd(f1 @ l1.T, f2 @ l2.T))
    return max(values)


def certificate(lp1: Array, lp2: Array, pivot: int, left_out: int, dim: int) -> float:
    """1 - mean of the smallest correlations of log-ratios."""
    compared = np.setdiff1d(np.arange(lp1.shape[1]), [pivot, left_out])
    ratios = [(lp - lp[:, pivot : pivot + 1])[:, compared] for lp in (lp1, lp2)]
    correlations = [np.corrcoef(u, v)[0, 1] for u, v in zip(*(ratio.T for ratio in ratios), strict=True)]
    return float(1 - np.sort(correlations)[:dim].mean())


def m_svd(u: Array, v: Array) -> float:
    """Mean covariance of the pairs of scores of a PLS-SVD of standardised u and v [N, M]."""
    from sklearn.cross_decomposition import PLSSVD

    scores1, scores2 = PLSSVD(n_components=u.shape[1], scale=True).fit_transform(u, v)
    return float((scores1 * scores2).sum() / (len(u) - 1) / u.shape[1])


def m_cca(x: Array, y: Array) -> float:
    """Mean canonical correlation."""
    from sklearn.cross_decomposition import CCA

    dim = x.shape[1]
    a, b = CCA(n_components=dim, max_iter=1000).fit_transform(x, y)
    return float(np.mean([np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(dim)]))


def logit_distances(f1: Array, g1: Array, f2: Array, g2: Array) -> dict[str, float]:
    """d_logit and the pseudo-inverse form of d_rep."""
    head1, head2 = g1 - g1.mean(0), g2 - g2.mean(0)
    logits1, logits2 = f1 @ head1.T, f2 @ head2.T
    squared = ((logits1 - logits2) ** 2).sum(1).mean()
    through = f1 - f2 @ (np.linalg.pinv(head1) @ head2).T
    return {
        "d_logit": float(np.sqrt(squared)),
        "d_logit_normalised": float(squared / (logits1**2).sum(1).mean()),
        "d_rep": float(np.sqrt((through**2).sum(1).mean())),
    }
