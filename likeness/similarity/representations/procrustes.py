"""Orthogonal Procrustes distances: what is left between two representations after the best rotation."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from likeness.similarity.representations.samples import centred, compact, compare_two


def procrustes_distance(x: Tensor, y: Tensor) -> Tensor:
    """min over orthogonal Q of ||X Q - Y||_F for centred X, Y of unit norm, a scalar in [0, sqrt 2]; 0 is alike.

    A metric (Schonemann 1966; Williams et al. 2021, arXiv 2110.14739); Ding et al. 2021 (arXiv 2108.01661)
    report its square, 2 - 2 ||X^T Y||_*, and torchmetrics' ProcrustesDisparity is 1 - (1 - d^2 / 2)^2. The
    narrower of x [N, M] and y [N, M'] is padded with zeros. Invariant to shifts, orthogonal maps and isotropic
    scaling of either. Not where representations are defined up to any invertible map, as those of a softmax
    classifier are: such a map changes it and the distribution not at all. Exactly equivalent x and y give 0 to
    1e-14. Raises ValueError for N < 2, N that differs, a constant representation and values that are not finite.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [0.0, -2.0]])
        >>> print(f"{procrustes_distance(x, 3 * x.flip(1) + 1):.4f}, {procrustes_distance(x, x[:, :1]):.4f}")
        0.0000, 1.0515
    """
    return compare_two(shape, chord, x, y)


def angular_procrustes_distance(x: Tensor, y: Tensor) -> Tensor:
    """arccos ||X^T Y||_* for centred X, Y of unit norm, a scalar in [0, pi / 2] radians; 0 is alike.

    The geodesic form of :func:`procrustes_distance` d, 2 arcsin(d / 2), and a metric too; netrep's default.
    Williams et al. 2021 (arXiv 2110.14739), eq. 8. Invariances, misuse and errors are those of
    :func:`procrustes_distance`.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [0.0, -2.0]])
        >>> print(f"{angular_procrustes_distance(x, 3 * x.flip(1) + 1):.4f}")
        0.0000
    """
    return compare_two(shape, angle, x, y)


def shape(x: Tensor, name: str) -> Tensor:
    """Centred rows [N, min(N, M)] of unit Frobenius norm."""
    x = compact(centred(x, name))
    norm: Tensor = torch.linalg.matrix_norm(x)
    return x / norm


def chord(x: Tensor, y: Tensor) -> Tensor:
    """||x Q - y||_F at the best rotation Q, from x [N, M] and y [..., N, M'].

    The residual itself is measured: 2 - 2 ||x^T y||_* loses half of the digits near 0.
    """
    width = max(x.shape[-1], y.shape[-1])
    x, y = (pad(rows, (0, width - rows.shape[-1])) for rows in (x, y))
    left, _, right = torch.linalg.svd(x.mT @ y)
    distance: Tensor = torch.linalg.matrix_norm(x @ (left @ right) - y)
    return distance


def angle(x: Tensor, y: Tensor) -> Tensor:
    """The angle in radians that the chord between x [N, M] and y [..., N, M'] spans."""
    return 2 * torch.asin((chord(x, y) / 2).clamp(max=1))
