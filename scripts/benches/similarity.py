"""Measures of representational similarity against a plain loop over the papers' definitions."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from rich.table import Table
from torch import Tensor

from likeness.measures.all_pairs import compare_all_pairs
from likeness.measures.comparison_options import ComparisonOptions
from likeness.measures.softmax_comparison import compare_softmax_models
from scripts.benches.memory import Peak, peak_of
from scripts.benches.timing import Contestant, Ratios, interleaved

RATIO = 100.0
SECONDS = 0.25  # for all pairs of 20 models
GIGABYTES = 8.0
ONE_PAIR = "one pair, K = 100, M = 10, N = 10,000"
LARGE = "one pair, K = 50,000, M = 1,024, N = 2,048"


@dataclass
class SimilarityReport:
    """Times of all pairs and of one, and the memory that a pair with many labels takes."""

    ratios: Ratios
    large: Peak | None

    @property
    def title(self) -> str:
        """Of the table."""
        return self.ratios.title

    def table(self) -> Table:
        """A row for each contestant."""
        return self.ratios.table()

    def verdicts(self) -> list[str]:
        """A line for each ratio, time and memory that is asked for."""
        if self.large is None:
            return self.ratios.verdicts()
        peak, seconds = self.large.gigabytes, self.large.seconds
        reached = "yes" if peak < GIGABYTES else "NO"
        memory = f"{LARGE}: under {GIGABYTES:g} GB is asked for: {reached} ({peak:.2f} GB, {seconds:.0f} s)"
        return [*self.ratios.verdicts(), memory]

    def as_dict(self) -> dict[str, Any]:
        """Seconds, ratios, and bytes where they were measured."""
        return self.ratios.as_dict() | {"large": self.large and asdict(self.large)}


def similarity(
    models: int = 20,
    repeats: int = 3,
    one_pair: bool = True,
    large: bool = False,
    device: Literal["cpu", "cuda"] = "cpu",
) -> SimilarityReport:
    """Seconds for every measure but the exact input search, all pairs at once and pair by pair.

    Args:
        models: Of which all pairs are compared.
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
    return SimilarityReport(ratios, peak_of(compare_large_models) if large else None)


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


def _one_by_one(f: Tensor, g: Tensor) -> list[dict[str, float]]:
    from scripts.benches.plain_similarity import plain_comparison  # imports scikit-learn

    count = len(f)
    arrays = f.numpy(), g.numpy()
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    return [plain_comparison(*(x[k] for k in pair for x in arrays)) for pair in pairs]


def _at_once(f: Tensor, g: Tensor) -> dict[str, Tensor]:
    return compare_all_pairs(f, g, options=ComparisonOptions(search="sampled"))
