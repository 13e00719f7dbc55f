"""P softmax models on the same inputs, with everything that their pairwise measures share.

Log-probabilities as vectors whose inner products are covariances.

Over N inputs, lp(y | .) less its mean is a vector with one coordinate for each input; what the measures need of
it are inner products with the same vectors of other labels and other models. All of them lie in the span of the
features [f_1; Z_1; ...; f_P; Z_P], Z the log-partition, so a factor R of the features' covariance holds them in
at most sum (M_i + 1) coordinates, whatever N and K. A factor and not the covariance itself: squares would put
the distance of exactly equivalent models at 1e-8, lengths leave it at 1e-15.

Over K labels, lp(. | x) is in the same way a vector in the span of the columns of the unembeddings.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor

from likeness.numerics import as_float64, require_finite, triangle
from likeness.similarity.cca import mean_canonical_correlations, require_span
from likeness.similarity.cloud import Cloud, Pairs
from likeness.similarity.joint_moments import JointMoments
from likeness.similarity.predictions import Predictions, predictions


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


class Head(NamedTuple):
    """Thin QR of centred unembeddings W [K, M]."""

    basis: Tensor  # [K, M]
    triangle: Tensor  # [M, M]
    smallest: Tensor  # singular value of W


def heads(vectors: LabelVectors) -> tuple[Head, ...]:
    """The factorised heads of P models.

    Raises RankDeficientError, naming the model and the shape, where W does not span the representation, so that
    no L_J is invertible.
    """
    return tuple(_head(head, name) for head, name in zip(vectors.heads, vectors.names, strict=True))


def _head(head: Tensor, name: str) -> Head:
    basis, triangle = torch.linalg.qr(head)
    singular = torch.linalg.svdvals(triangle)
    require_span(singular, (len(head), head.shape[1]), f"the unembeddings of model {name!r} less their mean")
    return Head(basis, triangle, singular[-1])


@dataclass(frozen=True)
class SoftmaxModels:
    """p(y | x) = softmax_y f(x) . g(y) for P models, in float64.

    The moments say all there is to say about the labels; only what is said of single inputs needs their embeddings. Of
    a stream of inputs these are the ones that were kept.
    """

    joint: JointMoments  # of f_i and the log-partitions over all inputs
    unembeddings: tuple[Tensor, ...]  # g_i [K, M_i]
    embeddings: tuple[Tensor, ...]  # f_i [n, M_i] of the inputs among which d_LLV's input set is sought

    @classmethod
    def of(
        cls, embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor], names: Sequence[str] | None = None
    ) -> Self:
        """From f_i [N, M_i] on all inputs and g_i [K, M_i]; a head with a bias has f_i = [f, 1] and g_i = [g, b].

        Raises ValueError, with the shapes, where N, K or a model's two M differ, N <= M or K <= M; with the model and
        the sample or label where a value is not finite; RankDeficientError, with the model and the shape, where the
        f or the differences of the g do not span their dimensions.
        """
        return cls.evaluated(embeddings, unembeddings, names)[0]

    @classmethod
    def evaluated(
        cls, embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor], names: Sequence[str] | None = None
    ) -> tuple[Self, Predictions]:
        """As :meth:`of`, with what the models predict, since their log-partitions are computed on the way."""
        names = list(names or (str(number + 1) for number in range(len(embeddings))))
        _check_shapes(embeddings, unembeddings, names)
        require_finite(embeddings, names)
        require_finite(unembeddings, names, "unembedding", "label")
        all_f = tuple(as_float64(f.detach()) for f in embeddings)
        all_g = tuple(as_float64(g.detach()) for g in unembeddings)
        predicted = predictions(all_f, all_g)
        models = cls(JointMoments.of(all_f, predicted.log_partitions, names), all_g, all_f)
        models._require_spans()
        return models, predicted

    @cached_property
    def labels(self) -> LabelVectors:
        """As functions of the input. Raises ValueError for fewer than two inputs."""
        return label_vectors(self.joint, self.unembeddings)

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """Raises RankDeficientError where the differences of the g do not span their dimensions."""
        return heads(self.labels)

    @cached_property
    def inputs(self) -> Cloud:
        """Those whose embeddings are there, as functions of the label."""
        return input_vectors(self.embeddings, self.unembeddings)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the models."""
        return self.joint.names

    @property
    def dims(self) -> tuple[int, ...]:
        """Representation dimension M_i of each model, without the constant coordinate of a biased head."""
        return self.labels.dims

    @property
    def bare_embeddings(self) -> list[Tensor]:
        """f_i [N, M_i] without the constant coordinate of a biased head."""
        return [f[:, :dim] for f, dim in zip(self.embeddings, self.dims, strict=True)]

    @property
    def m_cca_f(self) -> Tensor:
        """Mean canonical correlations of the f of all pairs over the inputs, [P, P]."""
        spans = zip(self.labels.cloud.axes, self.dims, strict=True)
        return mean_canonical_correlations([axes[:dim].T for axes, dim in spans])

    @property
    def m_cca_g(self) -> Tensor:
        """The same of the g over the labels."""
        return mean_canonical_correlations([head.basis for head in self.heads])

    @property
    def num_labels(self) -> int:
        """K."""
        return len(self.unembeddings[0])

    def all_pairs(self) -> Iterator[tuple[Pairs, int | None]]:
        """All pairs (i, j), i < j, in groups of one M, which is given; None for those whose M differ."""
        dims = torch.tensor(self.dims)
        i, j = torch.triu_indices(len(dims), len(dims), offset=1)
        common = torch.where(dims[i] == dims[j], dims[i], -1)
        for dim in sorted(set(common.tolist())):
            pairs = (index[common == dim].to(self.embeddings[0].device) for index in (i, j))
            yield (next(pairs), next(pairs)), None if dim < 0 else dim

    def _require_spans(self) -> None:
        """Raise as :meth:`of` does, from the labels on."""
        for root, name, dim in zip(self.labels.roots, self.names, self.dims, strict=True):
            shape = len(self.embeddings[0]), dim
            if shape[0] <= dim:
                raise ValueError(f"at least M + 1 inputs are needed, but f of model {name!r} is [N, M] = {list(shape)}")
            if self.num_labels <= dim:
                wrong = [self.num_labels, dim]
                raise ValueError(f"at least M + 1 labels are needed, but g of model {name!r} is [K, M] = {wrong}")
            require_span(torch.linalg.svdvals(root), shape, f"the embeddings of model {name!r}")
        _ = self.heads


def _check_shapes(embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor], names: Sequence[str]) -> None:
    if not len(embeddings) == len(unembeddings) == len(names):
        raise ValueError(
            f"received {len(embeddings)} embeddings, {len(unembeddings)} unembeddings and {len(names)} names of models"
        )
    shapes = [
        f"f {list(f.shape)} and g {list(g.shape)} of model {name!r}"
        for f, g, name in zip(embeddings, unembeddings, names, strict=True)
    ]
    for f, g, shape in zip(embeddings, unembeddings, shapes, strict=True):
        if f.dim() != 2 or g.dim() != 2 or f.shape[1] != g.shape[1]:
            raise ValueError(f"a softmax model has f [N, M] and g [K, M], but received {shape}")
    if len({len(f) for f in embeddings}) > 1:
        raise ValueError(f"models are compared on the same N inputs, but received {', '.join(shapes)}")
    if len({len(g) for g in unembeddings}) > 1:
        raise ValueError(f"models are compared on the same K labels, but received {', '.join(shapes)}")
