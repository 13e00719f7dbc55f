"""Whether two classifiers of the same queries differ by more than chance: McNemar's exact test."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Verdict = Literal["better", "worse", "not significant", "too few to tell"]


@dataclass(frozen=True)
class McNemar:
    """The queries on which only one of two classifiers is right, and how surprising their split is under a fair coin.

    McNemar 1947. Such a split cannot be significant where there are so few of these queries that even all on one side
    are likely enough: below 6 at the level of 5 %, where 2 / 2^5 is 0.0625.
    """

    baseline_only: int  # b
    other_only: int  # c
    level: float = 0.05

    @property
    def p(self) -> float:
        """Two-sided and exact: 2 P(Binomial(b + c, 1/2) <= min(b, c)), at most 1."""
        from scipy.stats import binomtest

        discordant = self.baseline_only + self.other_only
        return float(binomtest(self.other_only, discordant).pvalue) if discordant else 1.0

    @property
    def possible(self) -> bool:
        """Whether any split of as many queries would be significant."""
        return 2.0 ** (1 - self.baseline_only - self.other_only) <= self.level

    @property
    def significant(self) -> bool:
        """Whether p is at most the level."""
        return self.p <= self.level

    @property
    def verdict(self) -> Verdict:
        """Of the other classifier against the baseline."""
        if not self.possible:
            return "too few to tell"
        if not self.significant:
            return "not significant"
        return "better" if self.other_only > self.baseline_only else "worse"


def mcnemar(baseline: Tensor, other: Tensor, level: float = 0.05) -> McNemar:
    """Compare two classifiers by whether they are right, bool [m], on the same queries in the same order.

    Raises ValueError if the shapes differ.
    """
    if baseline.shape != other.shape:
        raise ValueError(
            f"both must be right or wrong on the same queries, got {[*baseline.shape]} and {[*other.shape]}"
        )
    return McNemar(int((baseline & ~other).sum()), int((~baseline & other).sum()), level)
