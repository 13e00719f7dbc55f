"""Measures of representational similarity against a plain loop over the papers' definitions."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from likeness.measures.all_pairs import compare_all_pairs
from likeness.measures.comparison_options import ComparisonOptions
from scripts.benches.timing import Contestant, Ratios, interleaved

LARGE = "one pair, K = 100, M = 10, N = 10,000"


def similarity(
    models: int = 20, repeats: int = 3, large: bool = True, device: Literal["cpu", "cuda"] = "cpu"
) -> Ratios:
    """Seconds for every measure but the exact input search, together and pair by pair.

    Args:
        models: Of which all pairs are compared.
        repeats: Rounds that are timed.
        large: Also compare two models with 100 labels on 10,000 inputs.
        device: Where the batched measures run.
    """
    siblings = f"all {models * (models - 1) // 2} pairs of {models} models, K = 6, M = 2, N = 2,000"
    comparisons = {siblings: _contest(models, 2000, 6, 2, repeats, device)}
    if large:
        comparisons[LARGE] = _contest(2, 10_000, 100, 10, repeats, device)
    return Ratios(f"similarity, float64, {device}", comparisons, required=dict.fromkeys(comparisons, 100.0))


def related_models(count: int, samples: int, labels: int, dim: int) -> tuple[Tensor, Tensor]:
    """f [P, N, M] and g [P, K, M] of models that share half of their variance."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(samples, dim), (labels, dim)]
    common = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    own = [torch.randn(count, *shape, generator=generator, dtype=torch.float64) for shape in shapes]
    f, g = (a + b for a, b in zip(common, own, strict=True))
    return f, g


def _contest(
    count: int, samples: int, labels: int, dim: int, repeats: int, device: str
) -> tuple[Contestant, Contestant]:
    f, g = related_models(count, samples, labels, dim)
    work: dict[str, Callable[[], object]] = {
        "NumPy and scikit-learn, pair by pair": lambda: _one_by_one(f, g),
        "all pairs at once": lambda: _at_once(f.to(device), g.to(device)),
    }
    slow, fast = interleaved(work, repeats, device)
    return slow, fast


def _one_by_one(f: Tensor, g: Tensor) -> list[dict[str, float]]:
    from scripts.benches.plain_similarity import plain_comparison  # imports scikit-learn

    count = len(f)
    arrays = f.numpy(), g.numpy()
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    return [plain_comparison(*(x[k] for k in pair for x in arrays)) for pair in pairs]


def _at_once(f: Tensor, g: Tensor) -> dict[str, Tensor]:
    return compare_all_pairs(f, g, options=ComparisonOptions(search="sampled"))
