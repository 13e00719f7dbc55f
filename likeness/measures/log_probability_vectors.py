"""Log-probabilities as vectors whose inner products are covariances.

Over N inputs, lp(y | .) less its mean is a vector with one coordinate for each input; what the measures need of
it are inner products with the same vectors of other labels and other models. All of them lie in the span of the
features [f_1; Z_1; ...; f_P; Z_P], Z the log-partition, so a factor R of the features' covariance holds them in
at most sum (M_i + 1) coordinates, whatever N and K. A factor and not the covariance itself: squares would put
the distance of exactly equivalent models at 1e-8, lengths leave it at 1e-15.

Over K labels, lp(. | x) is in the same way a vector in the span of the columns of the unembeddings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from likeness.measures.cloud import Cloud
from likeness.measures.joint_moments import JointMoments
from likeness.measures.moments import as_float64, triangle


@dataclass(frozen=True)
class LabelVectors:
    """The K labels of P models as functions of the input, in coordinates where a dot product is a covariance.

    lp(y | x) = u_y(x) + mean over labels, with the centred logits u = W f and W the centred unembeddings.
    Variances are over inputs, with N - 1 in the denominator. Biases are constant over inputs: they move ``mean``
    alone.
    """

    samples: float  # N
    names: tuple[str, ...]
    heads: tuple[Tensor, ...]  # W_i [K, M_i], without biases
    roots: tuple[Tensor, ...]  # [R, M_i], the coordinates of the functions f(x)
    cloud: Cloud  # K points in R dimensions: centred u_y, offset the mean over labels of lp(y | x)
    mean: Tensor  # [P, K] of u_y, over inputs

    @property
    def dims(self) -> tuple[int, ...]:
        """Representation dimension M_i of each model, without the constant coordinate of a biased head."""
        return tuple(head.shape[1] for head in self.heads)

    @property
    def num_labels(self) -> int:
        """K."""
        return self.mean.shape[1]


def label_vectors(joint: JointMoments, unembeddings: Sequence[Tensor]) -> LabelVectors:
    """Of joint moments over the inputs and g_i [K, M_i]. Raises ValueError for fewer than two inputs."""
    sizes = [size for g in unembeddings for size in (g.shape[1], 1)]
    roots = torch.split(joint.moments.root, sizes, dim=1)
    label_means = [as_float64(g).mean(0) for g in unembeddings]
    heads = [as_float64(g) - label_mean for g, label_mean in zip(unembeddings, label_means, strict=True)]
    offsets = [f @ g - z.squeeze(1) for f, z, g in zip(roots[::2], roots[1::2], label_means, strict=True)]
    means = torch.split(joint.moments.mean, sizes)[::2]
    mean = torch.stack([head @ f for head, f in zip(heads, means, strict=True)])
    dims = [joint.bare_dim(model) for model in range(len(unembeddings))]
    heads = [head[:, :dim] for head, dim in zip(heads, dims, strict=True)]
    functions = [f[:, :dim] for f, dim in zip(roots[::2], dims, strict=True)]
    return LabelVectors(
        samples=float(joint.moments.n),
        names=joint.names,
        heads=tuple(heads),
        roots=tuple(functions),
        cloud=Cloud.of_maps(heads, functions, torch.stack(offsets)),
        mean=mean,
    )


def input_vectors(embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor]) -> Cloud:
    """The N inputs of P models as functions of the label, N points in at most min(K, sum M_i) dimensions.

    A dot product of points is the covariance over labels of two of lp(. | x), with K - 1 in the denominator: Z
    is constant over labels.
    """
    joint = torch.cat([as_float64(g) for g in unembeddings], dim=1)
    joint = joint - joint.mean(0)
    root = triangle(joint) if joint.shape[0] > joint.shape[1] else joint
    maps = torch.split(root / (len(joint) - 1) ** 0.5, [g.shape[1] for g in unembeddings], dim=1)
    means = [as_float64(f).mean(0) for f in embeddings]
    centred = [as_float64(f) - mean for f, mean in zip(embeddings, means, strict=True)]
    return Cloud.of_maps(centred, maps, torch.stack([map_ @ mean for map_, mean in zip(maps, means, strict=True)]))
