"""How two softmax models are compared, where the measures leave a choice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from likeness.checks import require_positive

MIN_CONDITIONING = 1e-6  # smallest singular value of N relative to its largest: below, N is numerically singular
MAX_EXACT_INPUTS = 8192  # among which the best input set is found in about a second a pair


@dataclass(frozen=True)
class ComparisonOptions:
    """Options of :func:`likeness.similarity.comparison.compare_softmax_models`.

    Args:
        search: how the input set of d_LLV is found: the best of all sets (exact), or of random disjoint ones, as in
            the paper (sampled). auto is exact for at most 8,192 inputs, else sampled, whatever the number of models.
        num_samples: number of sampled input sets; with auto at most so many, as far as there are inputs.
        seed: of sampled input sets and label subsets; for the former NumPy's legacy seed, as in the paper's code.
        lambda_: weight of the terms 3 and 4 of d_LLV.
        combine: whether d_LLV is the largest of its terms, as in the paper, or their sum.
        label_choice: pivot and left-out label, in the place of those with the smallest term 1.
        input_set: positions of the pivot input and of further ones, in the place of a search. Between models that
            all are compared with the same label_choice and input_set, d_LLV is a metric.
        min_conditioning: relative smallest singular value under which an input set, or the label differences of the
            averaged d_rep, count as singular.
        max_subsets: above so many label subsets of d_SVD, num_subsets random ones and a certificate are used.
        num_subsets: number of sampled label subsets.
        max_choices: above so many choices of pivot and labels, the averaged d_rep takes so many random ones.
        span_tolerance: tau of :func:`likeness.spans.reduce_to_span`; 0 takes every dimension of f
            for one that it spans.

    Example:
        >>> ComparisonOptions(search="sampled", num_samples=100).num_samples
        100
        >>> ComparisonOptions(search="best")
        Traceback (most recent call last):
        ValueError: search must be one of exact, sampled, auto, got 'best'
    """

    search: Literal["exact", "sampled", "auto"] = "exact"
    num_samples: int = 200
    seed: int = 0
    lambda_: float = 1e-5
    combine: Literal["max", "sum"] = "max"
    label_choice: tuple[int, int] | None = None
    input_set: Sequence[int] | None = None
    min_conditioning: float = MIN_CONDITIONING
    max_subsets: int = 5_000
    num_subsets: int = 200
    max_choices: int = 20_000
    span_tolerance: float | None = None

    def searches_all(self, inputs: int) -> bool:
        """Whether the input set is the best of all sets of so many inputs."""
        return self.search == "exact" or (self.search == "auto" and inputs <= MAX_EXACT_INPUTS)

    def sampled_sets(self, inputs: int, size: int) -> int:
        """How many disjoint sets of this size are drawn of so many inputs."""
        return min(self.num_samples, inputs // size) if self.search == "auto" else self.num_samples

    def largest_tensor(self, embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor]) -> int:
        """Elements of logits [P, N, K], or of the gaps between labels [K, K] or inputs [N, N]."""
        samples, labels = (max(map(len, tensors), default=0) for tensors in (embeddings, unembeddings))
        searched = samples**2 if self.searches_all(samples) and self.input_set is None else 0
        return max(len(embeddings) * samples * labels, labels**2, searched)

    def __post_init__(self) -> None:
        for name, allowed in (("search", ("exact", "sampled", "auto")), ("combine", ("max", "sum"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("num_samples", "num_subsets", "max_choices"):
            require_positive(**{name: getattr(self, name)})
        for name in ("lambda_", "min_conditioning"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
