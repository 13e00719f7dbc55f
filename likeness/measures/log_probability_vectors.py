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
from likeness.measures.moments import JointMoments, as_float64, joint_features


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


def label_vectors(
    embeddings: Sequence[Tensor],
    unembeddings: Sequence[Tensor],
    log_partitions: Tensor,
    names: Sequence[str] | None = None,
) -> LabelVectors:
    """Of f_i [N, M_i], g_i [K, M_i] and Z [P, N] of P models on the same inputs; exact (QR)."""
    features = joint_features(embeddings, log_partitions)
    mean = features.mean(0)
    root = _triangle((features - mean) / (len(features) - 1) ** 0.5)
    biased = [has_bias(f) for f in embeddings]
    return _assemble(len(features), mean, root, unembeddings, biased, names)


def label_vectors_of_moments(joint: JointMoments, unembeddings: Sequence[Tensor]) -> LabelVectors:
    """Of streamed joint moments and g_i [K, M_i]; what is equal in theory is equal to about 1e-7 only."""
    n, mean, scatter = joint.moments
    eigenvalues, vectors = torch.linalg.eigh(scatter / (n - 1))
    root = (vectors * eigenvalues.clamp(min=0).sqrt()).T
    biased = [joint.has_bias(model) for model in range(len(joint.dims))]
    return _assemble(float(n), mean, root, unembeddings, biased, joint.names)


def input_vectors(embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor]) -> Cloud:
    """The N inputs of P models as functions of the label, N points in at most min(K, sum M_i) dimensions.

    A dot product of points is the covariance over labels of two of lp(. | x), with K - 1 in the denominator: Z
    is constant over labels.
    """
    joint = torch.cat([as_float64(g) for g in unembeddings], dim=1)
    joint = joint - joint.mean(0)
    root = _triangle(joint) if joint.shape[0] > joint.shape[1] else joint
    maps = torch.split(root / (len(joint) - 1) ** 0.5, [g.shape[1] for g in unembeddings], dim=1)
    means = [as_float64(f).mean(0) for f in embeddings]
    centred = [as_float64(f) - mean for f, mean in zip(embeddings, means, strict=True)]
    return Cloud.of_maps(centred, maps, torch.stack([map_ @ mean for map_, mean in zip(maps, means, strict=True)]))


def has_bias(f: Tensor) -> bool:
    """Whether the last coordinate of f [N, M] is 1 on every input: it carries a head's bias."""
    return f.shape[1] > 1 and bool((f[:, -1] == 1).all())


def _triangle(x: Tensor) -> Tensor:
    """R [min(N, D), D] of the QR of x [N, D]: R^T R = x^T x."""
    triangle: Tensor = torch.linalg.qr(x, mode="r")[1]
    return triangle


def _assemble(
    samples: float,
    mean: Tensor,
    root: Tensor,
    unembeddings: Sequence[Tensor],
    biased: Sequence[bool],
    names: Sequence[str] | None,
) -> LabelVectors:
    """From the features' mean [D] and root [R, D]."""
    sizes = [size for g in unembeddings for size in (g.shape[1], 1)]
    roots, means = torch.split(root, sizes, dim=1), torch.split(mean, sizes)
    label_means = [as_float64(g).mean(0) for g in unembeddings]
    heads = [as_float64(g) - label_mean for g, label_mean in zip(unembeddings, label_means, strict=True)]
    offsets = [f @ g - z.squeeze(1) for f, z, g in zip(roots[::2], roots[1::2], label_means, strict=True)]
    mean = torch.stack([head @ f for head, f in zip(heads, means[::2], strict=True)])
    parts = [slice(g.shape[1] - bias) for g, bias in zip(unembeddings, biased, strict=True)]
    heads = [head[:, part] for head, part in zip(heads, parts, strict=True)]
    functions = [f[:, part] for f, part in zip(roots[::2], parts, strict=True)]
    return LabelVectors(
        samples=samples,
        names=tuple(names or (str(number + 1) for number in range(len(heads)))),
        heads=tuple(heads),
        roots=tuple(functions),
        cloud=Cloud.of_maps(heads, functions, torch.stack(offsets)),
        mean=mean,
    )
