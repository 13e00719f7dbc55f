"""Representational similarity analysis: whether two representations agree on which samples are far apart."""

from functools import partial
from typing import Literal, get_args

from torch import Tensor
from torch.nn.functional import normalize, pdist

from likeness.checks import require_one_of
from likeness.numerics import as_float64, average_ranks, power_of_two
from likeness.similarity.representations.samples import centred, compact, compare_two, cosine, from_pairs
from likeness.similarity.undefined import UndefinedError

_EQUAL = 1e-12  # relative: what rounding leaves of equal distances
_CONSTANT = 1e-15  # deviations relative to the values: what rounding leaves of a constant

Distance = Literal["euclidean", "correlation"]
Correlation = Literal["spearman", "pearson"]


def rsa(x: Tensor, y: Tensor, distance: Distance = "euclidean", correlation: Correlation = "spearman") -> Tensor:
    """Correlation between the distances of all pairs of samples in x [N, M] and y [N, M'], a scalar in [-1, 1].

    Larger is more alike, 0 is unrelated. Kriegeskorte et al. 2008 (Frontiers in Systems Neuroscience 2:4), who
    take one minus the correlation between samples as the distance and Spearman's rank correlation between the
    dissimilarity matrices. Euclidean distance is the default here because representations may have 2 dimensions,
    where "correlation" knows two values only. Invariant to shifts (Euclidean), orthogonal maps (Euclidean) and
    isotropic scaling of either; Spearman's also to any growing function of the distances. Not for the p-value of
    a correlation of N (N - 1) / 2 numbers: pairs are not independent, so take the null. Memory N^2 a model.
    Raises ValueError for N < 3, N that differs, a constant representation, values that are not finite, equal
    distances throughout, and for "correlation" if M < 3 or a sample's coordinates are all equal.

    Example:
        >>> import torch
        >>> x = torch.randn(50, 3, generator=torch.manual_seed(0)).double()
        >>> print(f"{rsa(x, 2 * x[:, [2, 0, 1]] + 1):.4f}")
        1.0000
    """
    prepare = partial(dissimilarities, distance=distance, correlation=correlation)
    return compare_two(prepare, cosine, x, y)


def dissimilarities(x: Tensor, name: str, distance: Distance, correlation: Correlation) -> Tensor:
    """Dissimilarity matrix [N, N], or its ranks, off the diagonal centred and of unit norm."""
    require_one_of(distance, get_args(Distance), "distance")
    require_one_of(correlation, get_args(Correlation), "correlation")
    values = _euclidean(x, name) if distance == "euclidean" else _one_minus_correlation(x, name)
    if bool(values.max() - values.min() <= _EQUAL * values.max()):
        raise UndefinedError(
            f"all pairs of the {len(x)} samples of {name!r} are equally far apart, so none ranks first"
        )
    values = average_ranks(values) if correlation == "spearman" else values
    values = values - values.mean()
    norm: Tensor = values.norm()
    return from_pairs(values / (2**0.5 * norm), len(x))


def _euclidean(x: Tensor, name: str) -> Tensor:
    return pdist(compact(centred(x, name, at_least=3)))


def _one_minus_correlation(x: Tensor, name: str) -> Tensor:
    """1 - r of each pair of samples: half the squared distance between standardised samples."""
    if x.dim() == 2 and x.shape[1] < 3:
        raise UndefinedError(f"correlation distance needs at least 3 dimensions, but {name!r} is {list(x.shape)}")
    centred(x, name, at_least=3)
    x = as_float64(x)
    x = x / power_of_two(x, 1)
    offset = x - x.mean(1, keepdim=True)
    flat = offset.abs().amax(1) <= _CONSTANT * x.abs().amax(1)
    if bool(flat.any()):
        raise UndefinedError(
            f"the coordinates of sample {int(flat.nonzero()[0])} of {name!r} are all equal, so no correlation"
        )
    return pdist(normalize(offset, dim=1)).square() / 2
