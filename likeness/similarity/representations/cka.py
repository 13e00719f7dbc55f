"""Kernel alignment: how alike the similarities between samples are in two representations.

Every measure here is the cosine between two N x N matrices of kernel values, and they differ in the kernel,
in how it is centred and in which pairs of samples count. Larger is more alike.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pdist

from likeness.numerics import median, power_of_two
from likeness.similarity.joint_moments import JointMoments
from likeness.similarity.pairwise import PairValues
from likeness.similarity.representations.mutual_knn import require_neighbours
from likeness.similarity.representations.samples import centred, compact, compare_two, cosine, from_pairs, unit_norm
from likeness.similarity.undefined import UndefinedError

_FLAT = 1e-12  # of the kernel's energy: what rounding leaves where all pairs of samples are equally similar
_CONSTANT = 1e-15  # deviations relative to the mean: what rounding leaves of a constant


def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """Linear centred kernel alignment of x [N, M] and y [N, M'], a scalar in [0, 1]; larger is more alike.

    ||Xc^T Yc||_F^2 / (||Xc^T Xc||_F ||Yc^T Yc||_F), the cosine of the centred Gram matrices. Kornblith et al.
    2019 (arXiv 1905.00414), section 3. Invariant to shifts, orthogonal maps and isotropic scaling of either.
    Not for comparisons across N or M: unrelated representations score above 0, near 1 for N << M; use
    :func:`unbiased_linear_cka` or the null. The directions of largest variance decide it. Raises ValueError
    for N < 2, N that differs, a constant representation and values that are not finite.

    Example:
        >>> import torch
        >>> x = torch.randn(50, 3, generator=torch.manual_seed(0)).double()
        >>> print(f"{linear_cka(x, 2 * x[:, [2, 0, 1]] + 1):.4f}")
        1.0000
    """
    return compare_two(linear_features, linear_alignment, x, y)


def linear_cka_f(joint: JointMoments) -> PairValues:
    """:func:`linear_cka` of the embeddings for all pairs of P models, from their joint moments.

    Undefined for a model whose embeddings are the same for every input.
    """
    n, mean, factor = joint.moments
    count = len(joint.names)
    blocks, reasons = [], {}
    for model, name in enumerate(joint.names):
        block = joint.embedding(model)
        own = factor[:, block]
        if bool(own.abs().max() <= n.sqrt() * _CONSTANT * mean[block].abs().max()):
            reasons[model] = f"the embeddings of model {name!r} are the same for all of {int(n)} inputs"
        blocks.append(own / power_of_two(own))
    # ||X^T Y||_F^2 of each pair, and of each model with itself.
    energy = torch.stack([torch.stack([(x.T @ y).square().sum() for y in blocks]) for x in blocks])
    norm = energy.diagonal().sqrt()
    values = (energy / torch.outer(norm, norm)).clamp(max=1)
    pairs = [(i, j) for i in range(count) for j in range(count) if i in reasons or j in reasons]
    for pair in pairs:
        values[pair] = torch.nan
    return PairValues(values, {(i, j): reasons.get(i) or reasons[j] for i, j in pairs}, {})


def unbiased_linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """Linear CKA from unbiased estimates of HSIC, a scalar in [-1, 1]; larger is more alike, 0 is unrelated.

    HSIC_1(X, Y) / sqrt(HSIC_1(X, X) HSIC_1(Y, Y)) with HSIC_1 of Song et al. 2012 (JMLR 13), eq. 5, after
    Nguyen et al. 2021 (arXiv 2010.15327). Each HSIC_1 is unbiased; their ratio is so only nearly. Invariant as
    :func:`linear_cka` is. Not for few samples, where its spread is wide (see the null). Raises as
    :func:`linear_cka` does, for N < 4, and where all samples are equally similar to each other.

    Example:
        >>> import torch
        >>> x = torch.randn(50, 3, generator=torch.manual_seed(0)).double()
        >>> print(f"{unbiased_linear_cka(x, 2 * x[:, [2, 0, 1]] + 1):.4f}")
        1.0000
    """
    return compare_two(unbiased_linear_features, unbiased_linear_alignment, x, y)


def rbf_cka(x: Tensor, y: Tensor, bandwidth: float = 1.0) -> Tensor:
    """CKA with Gaussian kernels exp(-d^2 / (2 sigma^2)), a scalar in [0, 1]; larger is more alike.

    sigma is ``bandwidth`` times the median distance between two samples, for each representation its own. Kornblith
    et al. 2019, section 3. Invariant to shifts, orthogonal maps and isotropic scaling of either. A small bandwidth
    asks about near samples only; a large one tends to linear CKA. Biased as :func:`linear_cka` is. Memory N^2 a
    model. Raises as :func:`linear_cka` does, for a bandwidth that is not positive and where the median distance is 0.

    Example:
        >>> import torch
        >>> x = torch.randn(50, 3, generator=torch.manual_seed(0)).double()
        >>> print(f"{rbf_cka(x, 2 * x[:, [2, 0, 1]] + 1):.4f}")
        1.0000
    """
    return compare_two(partial(rbf_kernel, bandwidth=bandwidth), cosine, x, y)


def cknna(x: Tensor, y: Tensor, k: int = 10) -> Tensor:
    """Centred kernel nearest-neighbour alignment, a scalar in [-1, 1]; larger is more alike.

    The cosine of the centred linear Gram matrices restricted to pairs (i, j) for which j is among the k most
    similar samples to i; in the numerator, in both representations. Huh et al. 2024 (arXiv 2405.07987),
    appendix A, with neighbours by centred inner product; the authors first scale samples to unit length. (Their
    code puts kernels masked so, uncentred, into HSIC_1: that is not symmetric in x and y, and its values differ.)
    Invariant to shifts, orthogonal maps and isotropic scaling of either. Not for samples of very unequal length,
    of whom the long ones are everybody's neighbours. Memory N^2 a model. Raises as :func:`linear_cka` does, and
    for k outside 1..N-1.

    Example:
        >>> import torch
        >>> x = torch.randn(50, 3, generator=torch.manual_seed(0)).double()
        >>> print(f"{cknna(x, 2 * x[:, [2, 0, 1]] + 1):.4f}")
        1.0000
    """
    return compare_two(partial(neighbour_kernel, k=k), cosine, x, y)


def linear_features(x: Tensor, name: str) -> Tensor:
    """Centred rows [N, min(N, M)], scaled so that their Gram matrix has unit norm."""
    x = compact(centred(x, name))
    x = x / torch.linalg.matrix_norm(x)
    gram_norm: Tensor = torch.linalg.matrix_norm(x.T @ x)
    return x / gram_norm.sqrt()


def linear_alignment(x: Tensor, y: Tensor) -> Tensor:
    """Inner product of the Gram matrices of rows x [N, M] and y [..., N, M']."""
    return (x.mT @ y).square().sum((-2, -1)).clamp(max=1)


def unbiased_linear_features(x: Tensor, name: str) -> Tensor:
    """Centred rows [N, min(N, M)], scaled so that their HSIC_1 is 1 / (N (N - 3))."""
    x = compact(centred(x, name, at_least=4))
    x = x / torch.linalg.matrix_norm(x)
    hsic = _hsic(x, x)
    if bool(hsic <= _FLAT * (x.T @ x).square().sum()):
        raise UndefinedError(
            f"all pairs of the {len(x)} samples of {name!r} are equally similar, so unbiased CKA is undefined"
        )
    return x / hsic**0.25


def unbiased_linear_alignment(x: Tensor, y: Tensor) -> Tensor:
    """N (N - 3) HSIC_1 of the linear kernels of centred rows x [N, M] and y [..., N, M'], at most 1 in size."""
    return _hsic(x, y).clamp(-1, 1)


def rbf_kernel(x: Tensor, name: str, bandwidth: float) -> Tensor:
    """Doubly centred Gaussian Gram matrix [N, N] of unit norm."""
    if not bandwidth > 0:
        raise ValueError(f"the bandwidth must be positive, in medians of the distance, but it is {bandwidth}")
    x = compact(centred(x, name))
    distances = pdist(x)
    middle = median(distances)
    if bool(middle == 0):
        raise UndefinedError(f"most of the {len(x)} samples of {name!r} coincide: their median distance is 0")
    kernel = from_pairs(torch.exp(-0.5 * (distances / (bandwidth * middle)).square()), len(x)).fill_diagonal_(1)
    return unit_norm(_centred_both_ways(kernel), name, "the kernel values")


def neighbour_kernel(x: Tensor, name: str, k: int) -> Tensor:
    """Centred linear Gram matrix [N, N] with all but the k largest entries of a row, off the diagonal, zero."""
    x = compact(centred(x, name))
    require_neighbours(len(x), k, name)
    gram = x @ x.T
    nearest = gram.clone().fill_diagonal_(-torch.inf).topk(k, dim=1).indices
    masked = torch.zeros_like(gram).scatter(1, nearest, gram.gather(1, nearest))
    return unit_norm(masked, name, "the similarities to neighbours")


def _hsic(x: Tensor, y: Tensor) -> Tensor:
    """N (N - 3) HSIC_1 of linear kernels in O(N M M'): Song et al.'s eq. 5, which for centred rows collapses.

    With zero column sums, the row sums of a Gram matrix without its diagonal are minus the squared lengths.
    """
    n = x.shape[-2]
    a, b = x.square().sum(-1), y.square().sum(-1)
    cross = (x.mT @ y).square().sum((-2, -1))
    return cross - n / (n - 2) * (a * b).sum(-1) + a.sum(-1) * b.sum(-1) / ((n - 1) * (n - 2))


def _centred_both_ways(kernel: Tensor) -> Tensor:
    return kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()
