"""What is suspicious of embeddings that can be measured all the same: warnings with the count and the first rows."""

import torch
from torch import Tensor

from likeness.measures.feature_moments import FeatureMoments
from likeness.measures.points import first_rows, row_lengths


def row_warnings(embeddings: Tensor, name: str, metric: str) -> list[str]:
    """Rows of zeros and duplicates among finite embeddings [N, D].

    Raises ValueError for rows of zeros under the cosine, which they do not have.
    """
    if metric == "cosine":
        row_lengths(embeddings, name)
    zero, repeated = zero_rows(embeddings), repeated_rows(embeddings)
    warnings = [f"{len(zero):,} rows of {name} are zero: {first_rows(zero)}"] if len(zero) else []
    if len(repeated):
        warnings.append(f"{len(repeated):,} rows of {name} repeat an earlier one: {first_rows(repeated)}")
    return warnings


def dimension_warnings(embeddings: Tensor, name: str) -> list[str]:
    """Dimensions that are constant over the rows [N, D]."""
    dead = dead_dimensions(embeddings)
    return [f"{len(dead):,} dimensions of {name} are constant: {first_rows(dead)}"] if len(dead) else []


def zero_rows(embeddings: Tensor) -> Tensor:
    """Positions of the rows of zeros, ascending."""
    return (embeddings == 0).all(1).nonzero().flatten()


def dead_dimensions(embeddings: Tensor) -> Tensor:
    """The dimensions that do not vary over the rows [N, D], ascending (:meth:`FeatureMoments.live`)."""
    return (~FeatureMoments.of(embeddings).live()).nonzero().flatten()


def repeated_rows(embeddings: Tensor) -> Tensor:
    """Positions of the rows [N, D] that equal an earlier row, ascending."""
    row_of: Tensor = torch.unique(embeddings, dim=0, return_inverse=True)[1]  # [N] among the distinct rows
    positions = torch.arange(len(row_of), device=row_of.device)
    first = positions.new_full(positions.shape, len(row_of)).scatter_reduce(0, row_of, positions, "amin")
    return positions[first[row_of] < positions]
