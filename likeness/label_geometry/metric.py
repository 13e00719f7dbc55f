"""The geometry of labels as a metric whose states merge exactly over batches and ranks."""

import torch
from torch import Tensor
from torchmetrics import Metric

from likeness.label_geometry.similarity import centred_similarity, co_probability, logit_correlation, raw_similarity
from likeness.numerics import Moments, as_float64, require_finite


class LabelSimilarity(Metric):
    """Similarities of the labels of P softmax models, and how often labels are probable together, in float64.

    The answer is the same at any batch size and on any number of ranks; its memory is P K^2 and P M^2 numbers. On
    Apple's MPS, which has no float64, leave the metric on the CPU.

    Args:
        members: P.
        labels: K.
        dim: M, the constant coordinate of a biased head included.

    Example:
        >>> import torch
        >>> metric = LabelSimilarity(members=1, labels=3, dim=2)
        >>> metric.update(torch.randn(1, 50, 2, generator=torch.manual_seed(0)), torch.eye(3, 2)[None])
        >>> {name: list(values.shape) for name, values in metric.compute().items()}["raw"]
        [1, 3, 3]
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False

    packed_moments: Tensor  # [P, M+1, M+1] of the embeddings
    products: Tensor  # [P, K, K] sums over inputs of p_i p_j

    def __init__(self, members: int, labels: int, dim: int) -> None:
        super().__init__()
        self.names = [str(member) for member in range(members)]
        self.unembeddings: list[Tensor] = []
        moments = torch.zeros(members, dim + 1, dim + 1, dtype=torch.float64)
        products = torch.zeros(members, labels, labels, dtype=torch.float64)
        self.add_state("packed_moments", moments, dist_reduce_fx=_merge)
        self.add_state("products", products, dist_reduce_fx="sum")

    def update(self, f: Tensor, g: Tensor, ids: Tensor | None = None) -> None:
        """Add samples: f [P, N, M], g [P, K, M] and the samples' positions in their split [N].

        Raises ValueError naming the model and sample of a value that is not finite.
        """
        require_finite(list(f), self.names, ids=ids)
        require_finite(list(g), self.names, "label vector", "label")
        self.unembeddings = [member.detach().to(self.products) for member in g]
        f, g = as_float64(f).to(self.products), as_float64(g).to(self.products)
        batch = torch.stack([Moments.of(member).pack() for member in f])
        self.packed_moments = _merge(torch.stack([self.packed_moments, batch]))
        p = (f @ g.mT).softmax(-1)
        self.products = self.products + p.mT @ p  # not in place: it may have been made in inference mode

    def compute(self) -> dict[str, Tensor]:
        """``raw``, ``centred``, ``invariant`` and ``together``, [P, K, K] each in float64; NaN where undefined.

        The raw and the centred cosine are of label vectors without the biases of a head.
        """
        moments = [Moments.unpack(packed) for packed in self.packed_moments]
        vectors = [_without_bias(g, of_f) for g, of_f in zip(self.unembeddings, moments, strict=True)]
        covariances = [of_f.scatter / (of_f.n - 1).clamp(min=1) for of_f in moments]
        pairs = zip(self.unembeddings, covariances, strict=True)
        return {
            "raw": torch.stack([raw_similarity(g) for g in vectors]),
            "centred": torch.stack([centred_similarity(g) for g in vectors]),
            "invariant": torch.stack([logit_correlation(g, covariance) for g, covariance in pairs]),
            "together": co_probability(self.products),
        }


def _without_bias(g: Tensor, of_f: Moments) -> Tensor:
    """g [K, M] without its last column, if f's last coordinate was 1 on every input: it carries a head's bias."""
    biased = g.shape[1] > 1 and bool((of_f.mean[-1] == 1) & (of_f.scatter[-1, -1] == 0))
    return g[:, : g.shape[1] - biased]


def _merge(packed: Tensor) -> Tensor:
    """One packed state [P, M+1, M+1] from S stacked ones."""
    members = packed.unbind(1)
    return torch.stack([Moments.merge(Moments.unpack(member)).pack() for member in members])
