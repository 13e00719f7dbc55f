"""Metrics over a data set that any split into batches and ranks answers alike: their states are sums in float64.

Means of classifiers and their siblings, the likelihood of tokens, the ELBO with both errors of its Monte-Carlo
estimate, and Spearman's rank correlation.
"""

import math

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from likeness.checks import require_positive
from likeness.diffusion.elbo import AnyTerms, ElboTerms, bits_per_dim


class MemberMean(Metric):
    """Means over samples, [P], or one of a single model; NaN of no samples.

    torchmetrics' MeanMetric rounds what it is given to float32, whatever its states.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, num_members: int | None = None) -> None:
        super().__init__()
        shape = () if num_members is None else (num_members,)
        self.add_state("total", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add ``values`` [P, B], or [B]."""
        # not in place: states may have been made in inference mode, where Lightning validates outside of training
        self.total = self.total + values.sum(-1, dtype=torch.float64)
        self.count = self.count + values.shape[-1]

    def compute(self) -> Tensor:
        """The members' means [P], or the mean, float64; torchmetrics makes a scalar of a single member's."""
        return self.total / self.count


class TokenMetric(Metric):
    """What a language model says of the tokens that came: a mean over tokens, never one over batches' or texts' means.

    Of P siblings each answer is [P]. States are sums in float64, so batches and ranks merge to the same numbers.
    """

    full_state_update = False
    tokens: Tensor
    nats: Tensor
    correct: Tensor
    text_bytes: Tensor

    def __init__(self, num_members: int | None = None) -> None:
        super().__init__()
        of_models = () if num_members is None else (num_members,)
        for name, shape in (("tokens", ()), ("nats", of_models), ("correct", of_models), ("text_bytes", ())):
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, nll: Tensor, correct: Tensor, num_bytes: Tensor | None = None) -> None:
        """Add N predicted tokens: nll [N], or [P, N], in nats, correct alike, and the bytes of text of each, [N]."""
        self.tokens = self.tokens + nll.shape[-1]
        self.nats = self.nats + nll.sum(-1, dtype=torch.float64)
        self.correct = self.correct + correct.sum(-1)
        if num_bytes is not None:
            self.text_bytes = self.text_bytes + num_bytes.sum()

    def compute(self) -> dict[str, Tensor]:
        """``nll`` in nats a token, ``perplexity``, ``accuracy`` of the likeliest token, in float64.

        Also ``bits_per_byte`` of text where bytes were given, the only likelihood that models with different tokens
        share. NaN of no tokens.
        """
        nll = self.nats / self.tokens
        found = {"nll": nll, "perplexity": nll.exp(), "accuracy": self.correct / self.tokens}
        if self.text_bytes > 0:
            found["bits_per_byte"] = self.nats / (math.log(2) * self.text_bytes)
        return found


class BoundMetric(Metric):
    """Means of the negative ELBO and its terms in bits per dimension, over observations and K draws of their noise.

    An observation is a sample, or whatever else is drawn independently. States are sums in float64, so batches and
    ranks merge to the same numbers.

    Args:
        draws: K.
        kind: which terms there are, the class of their tuple.
    """

    full_state_update = False
    higher_is_better = False
    count: Tensor  # of observations
    total: Tensor  # [K, Q] bits per dimension
    squares: Tensor  # [Q] of observations, each averaged over its draws

    def __init__(self, draws: int = 1, kind: type[AnyTerms] = ElboTerms) -> None:
        super().__init__()
        self.quantities = (*kind._fields, "bpd")
        require_positive(draws=draws)
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(draws, len(self.quantities), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros(len(self.quantities), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, terms: AnyTerms, dims: int) -> None:
        """Add n observations: terms in nats, [K, n] each, of samples with d = ``dims``."""
        nats = torch.stack(terms, dim=-1).to(self.total)
        bits = bits_per_dim(torch.cat([nats, nats.sum(-1, keepdim=True)], dim=-1), dims)
        self.count = self.count + bits.shape[1]
        self.total = self.total + bits.sum(1)
        self.squares = self.squares + bits.mean(0).square().sum(0)

    def compute(self) -> dict[str, Tensor]:
        """``bpd`` and each term, float64 scalars, with their standard errors where these are defined.

        ``<name>_sample_se`` is over two or more observations, each averaged over its draws: it says how far the mean
        is from that of all data there could be. ``<name>_draw_se`` is over two or more draws: how far it is from the
        mean of these same observations over endlessly many draws.
        """
        means = self.total / self.count
        mean = means.mean(0)
        answers = dict(zip(self.quantities, mean, strict=True))
        if self.count > 1:
            variance = (self.squares / self.count - mean.square()).clamp(min=0) / (self.count - 1)
            answers |= {
                f"{name}_sample_se": value for name, value in zip(self.quantities, variance.sqrt(), strict=True)
            }
        if len(means) > 1:
            error = means.std(0) / math.sqrt(len(means))
            answers |= {f"{name}_draw_se": value for name, value in zip(self.quantities, error, strict=True)}
        return answers


class Spearman(Metric):
    """Correlation of the ranks of two quantities, equal values sharing the mean of theirs.

    NaN where one is constant, as it is of a single sample, and of no samples.

    Unlike torchmetrics' SpearmanCorrCoef without a constant in the denominator, in float64, and without a warning for
    each metric that is made.
    """

    full_state_update = False
    higher_is_better = True
    x: list[Tensor]
    y: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("x", "y"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, x: Tensor, y: Tensor) -> None:
        """Add both quantities of B samples, [B] each."""
        self.x.append(x.detach().double())
        self.y.append(y.detach().double())

    def compute(self) -> Tensor:
        """The correlation, a float64 scalar."""
        from likeness.numerics import rank_correlation  # diffusion models need nothing of it

        if not len(self.x):
            return torch.tensor(math.nan, dtype=torch.float64, device=self.device)
        return rank_correlation(dim_zero_cat(self.x), dim_zero_cat(self.y))
