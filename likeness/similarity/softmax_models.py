"""P softmax models on the same inputs, with everything that their pairwise measures share.

Everything on the label side, and every correlation between representations, is a function of the mean and the scatter
over inputs of a(x) = [f_1; Z_1; ...; f_P; Z_P], with Z the log-partitions: :class:`JointMoments`. Their size depends
neither on the number of inputs nor on that of labels, and they can be streamed.

Over N inputs, lp(y | .) less its mean is a vector with one coordinate for each input; what the measures need of it are
inner products with the same vectors of other labels and other models. A factor R of the scatter holds them all in at
most sum (M_i + 1) coordinates. A factor and not the scatter itself: squares would put the distance of exactly
equivalent models at 1e-8, lengths leave it at 1e-15. Over K labels, lp(. | x) is in the same way a vector in the span
of the columns of the unembeddings.

A final LayerNorm, or a dead unit, leaves f in fewer than M dimensions, and float32 fills the others with its rounding.
Models are compared in what f spans (:mod:`likeness.spans`): the distribution is the same, and M then means the rank.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor

from likeness.numerics import (
    as_float64,
    first_copies,
    require_finite,
    triangle_of_blocks,
)
from likeness.similarity.cloud import Cloud, blocks, one_pair, padded
from likeness.similarity.joint_moments import JointMoments
from likeness.similarity.predictions import Predictions, centred_head, mean_row, predictions
from likeness.similarity.undefined import Facts
from likeness.spans import Span, span_of_factor

_ROWS_A_COLUMN = 8  # of a block of unembeddings that is factorised at once


def mean_canonical_correlations(bases: Sequence[Tensor]) -> Tensor:
    """m_CCA of all pairs of P representations, [P, P], from orthonormal bases [n, M_i] of what they span, centred."""
    dims = torch.tensor([basis.shape[1] for basis in bases], device=bases[0].device)
    found = torch.eye(len(bases), dtype=bases[0].dtype, device=bases[0].device)
    i, j = torch.triu_indices(len(bases), len(bases), offset=1, device=found.device)
    if len(i):
        whole = padded(bases)  # whose columns of zeros add no correlation
        singular: Tensor = torch.linalg.svdvals(whole[i].mT @ whole[j]).clamp(max=1)
        found[i, j] = found[j, i] = singular.sum(-1) / torch.minimum(dims[i], dims[j])
    return found


@dataclass(frozen=True)
class LabelVectors:
    """The K labels of P models as functions of the input, in coordinates where a dot product is a covariance.

    lp(y | x) = u_y(x) - Z(x) - log K, with the centred logits u = W f and W the centred unembeddings. Variances are
    over inputs, with N - 1 in the denominator. Biases are constant over inputs: they move ``mean`` alone.
    """

    samples: float  # N
    names: tuple[str, ...]
    unembeddings: tuple[Tensor, ...]  # g_i [K, M_i] of all labels, biases too
    centres: tuple[Tensor, ...]  # [M_i] of f, over inputs
    roots: tuple[Tensor, ...]  # [R, M_i], the coordinates of the functions f(x)
    cloud: Cloud  # K points in R dimensions: centred u_y, offset -Z
    mean: Tensor  # [P, K] of u_y, over inputs
    equal: Tensor | None = None  # of all labels the first one that is equal, which stands for it; None: itself

    @property
    def heads(self) -> tuple[Tensor, ...]:
        """W_i [K, M_i], without biases: centred among all labels, and computed anew each time."""
        heads = (centred_head(g) for g in self.unembeddings)
        bare = (head[:, :dim] for head, dim in zip(heads, self.dims, strict=True))
        return tuple(bare if self.equal is None else (head[self.ids] for head in bare))

    @cached_property
    def head_triangles(self) -> tuple[Tensor, ...]:
        """R_i [R, M_i] with R_i^T R_j = W_i^T W_j over all labels, R at most the sum of the M_i; biases are in them."""
        count, sizes = len(self.unembeddings[0]), [g.shape[1] for g in self.unembeddings]
        if count <= sum(sizes):
            joint = torch.cat([centred_head(g) for g in self.unembeddings], dim=1)
        else:
            rows = blocks(count, sum(sizes), self.mean.device, least=_ROWS_A_COLUMN * sum(sizes))
            joint = triangle_of_blocks(map(self._rows_of_heads, rows))
        return torch.split(joint, sizes, dim=1)

    def _rows_of_heads(self, rows: slice) -> Tensor:
        """Of all W_i, side by side."""
        heads = zip(self.unembeddings, self._mean_rows, strict=True)
        return torch.cat([as_float64(g[rows]) - mean for g, mean in heads], dim=1)

    @cached_property
    def _mean_rows(self) -> list[Tensor]:
        return [mean_row(g) for g in self.unembeddings]

    @property
    def triangles(self) -> tuple[Tensor, ...]:
        """The same without biases."""
        return tuple(factor[:, :dim] for factor, dim in zip(self.head_triangles, self.dims, strict=True))

    @property
    def means(self) -> tuple[Tensor, ...]:
        """Of u over the inputs, [R], in the coordinates of the triangles."""
        return tuple(factor @ f for factor, f in zip(self.head_triangles, self.centres, strict=True))

    @property
    def ids(self) -> Tensor:
        """What the K labels are called."""
        every = torch.arange(self.num_labels, device=self.mean.device)
        return every if self.equal is None else torch.unique(self.equal)

    @property
    def dims(self) -> tuple[int, ...]:
        """Representation dimension M_i of each model, without the constant coordinate of a biased head."""
        return tuple(root.shape[1] for root in self.roots)

    @property
    def num_labels(self) -> int:
        """K."""
        return self.mean.shape[1]

    def of_labels(self, index: Tensor) -> "LabelVectors":
        """Some of the labels, which stay what they are: p(y | x) is that among all labels."""
        return replace(self, cloud=self.cloud.at(index), mean=self.mean[:, index])


def label_vectors(joint: JointMoments, unembeddings: Sequence[Tensor]) -> LabelVectors:
    """Of joint moments over the inputs and g_i [K, M_i]."""
    functions, means = zip(*joint.functions(), strict=True)
    mean = joint.moments.mean.new_empty(len(unembeddings), len(unembeddings[0]))

    def heads() -> Iterator[Tensor]:  # one at a time: each takes as much as all labels of a model
        for model, (g, f, function) in enumerate(zip(unembeddings, means, functions, strict=True)):
            head = centred_head(g)
            mean[model] = head @ f
            yield head[:, : function.shape[1]]

    partitions = [joint.log_partition(model) for model in range(len(unembeddings))]
    cloud = Cloud.of_maps(heads(), functions, -joint.root[:, partitions].T)
    return LabelVectors(
        samples=float(joint.moments.n),
        names=joint.names,
        unembeddings=tuple(unembeddings),
        centres=means,
        roots=functions,
        cloud=cloud,
        mean=mean,
    )


def input_vectors(embeddings: Sequence[Tensor], factors: Sequence[Tensor], num_labels: int) -> Cloud:
    """The N inputs of P models as functions of the label, N points in at most min(K, sum M_i) dimensions.

    ``factors`` [R, M_i] are :attr:`LabelVectors.head_triangles`. A dot product of points is the covariance over labels
    of two of lp(. | x), with K - 1 in the denominator: Z is constant over labels.
    """
    maps = [factor / max(1, num_labels - 1) ** 0.5 for factor in factors]
    means = [as_float64(f).mean(0) for f in embeddings]
    centred = [as_float64(f) - mean for f, mean in zip(embeddings, means, strict=True)]
    return Cloud.of_maps(centred, maps, torch.stack([map_ @ mean for map_, mean in zip(maps, means, strict=True)]))


class FactorisedHead(NamedTuple):
    """Thin QR of centred unembeddings W [K, M]."""

    basis: Tensor  # [K, M]
    triangle: Tensor  # [M, M]
    smallest: Tensor  # singular value of W

    @classmethod
    def of(cls, head: Tensor) -> Self:
        """Of W [K, M], K > M."""
        basis, factor = torch.linalg.qr(head)
        return cls(basis, factor, torch.linalg.svdvals(factor)[-1])


@dataclass(frozen=True)
class SoftmaxModels:
    """p(y | x) = softmax_y f(x) . g(y) for P models, in float64.

    The moments say all there is to say about the labels; only what is said of single inputs needs their embeddings. Of
    a stream of inputs these are the ones that were kept.
    """

    joint: JointMoments  # of f_i and the log-partitions over all inputs
    unembeddings: tuple[Tensor, ...]  # g_i [K, M_i]
    embeddings: tuple[Tensor, ...]  # f_i [n, M_i] of the inputs among which d_LLV's input set is sought
    given: "SoftmaxModels | None" = None  # before they were reduced to what f spans
    bases: tuple[Tensor | None, ...] = ()  # [M_i, r_i] by which they were; None where f spans all dimensions

    @classmethod
    def of(
        cls,
        embeddings: Sequence[Tensor],
        unembeddings: Sequence[Tensor],
        names: Sequence[str] | None = None,
        tau: float | None = None,
    ) -> Self:
        """From f_i [N, M_i] on all inputs and g_i [K, M_i]; a head with a bias has f_i = [f, 1] and g_i = [g, b].

        They are :meth:`reduced`. Raises ValueError, with the shapes, where N, K or a model's two M differ or are 0;
        with the model and the sample or label where a value or a logit is not finite.
        """
        return cls.evaluated(embeddings, unembeddings, names, tau)[0]

    @classmethod
    def evaluated(
        cls,
        embeddings: Sequence[Tensor],
        unembeddings: Sequence[Tensor],
        names: Sequence[str] | None = None,
        tau: float | None = None,
    ) -> tuple[Self, Predictions]:
        """As :meth:`of`, with what the models predict, since their log-partitions are computed on the way."""
        names = list(names or (str(number + 1) for number in range(len(embeddings))))
        _check_shapes(embeddings, unembeddings, names)
        predicted = checked_predictions(embeddings, unembeddings, names)
        all_f, all_g = (tuple(as_float64(x.detach()) for x in tensors) for tensors in (embeddings, unembeddings))
        joint = JointMoments.of([f.detach() for f in embeddings], predicted.log_partitions, names)
        return cls(joint, all_g, all_f).reduced(tau), predicted

    def reduced(self, tau: float | None = None) -> Self:
        """The models in coordinates of what their embeddings span; themselves where that is all M dimensions.

        The same distributions, as models with f = [fr, 1] and g = [gr, br] of :func:`likeness.spans.reduce_to_span`.
        Directions are those of the moments, thus of all inputs. Left as they are: models with N <= M or constant
        embeddings.
        """
        bases = tuple(self.joint.span_basis(model, tau) for model in range(len(self.names)))
        if all(basis is None for basis in bases):
            return replace(self, bases=bases)
        parts = [self._in_basis(model, basis) for model, basis in enumerate(bases)]
        embeddings, unembeddings = zip(*parts, strict=True)
        given = self.given or self
        return replace(
            self,
            joint=self.joint.in_bases(bases),
            unembeddings=unembeddings,
            embeddings=embeddings,
            given=given,
            bases=bases,
        )

    def _in_basis(self, model: int, basis: Tensor | None) -> tuple[Tensor, Tensor]:
        f, g = self.embeddings[model], self.unembeddings[model]
        if basis is None:
            return f, g
        dim, block = self.joint.bare_dim(model), self.joint.embedding(model)
        mean = self.joint.moments.mean[block]
        g = as_float64(g)
        bias = g[:, :dim] @ mean + g[:, dim:].sum(1)
        spanned = (as_float64(f[:, :dim]) - mean) @ basis
        return torch.column_stack([spanned, torch.ones_like(spanned[:, :1])]), torch.column_stack(
            [g[:, :dim] @ basis, bias]
        )

    @cached_property
    def given_dims(self) -> tuple[int, ...]:
        """M_i of each model as it was given, without the constant coordinate of a biased head."""
        joint = (self.given or self).joint
        return tuple(joint.bare_dim(model) for model in range(len(self.names)))

    @cached_property
    def equal_labels(self) -> tuple[Tensor | None, ...]:
        """For each label of a model the first one with an equal g, biases aside, [K]; None where all differ."""
        heads = [g[:, :dim] for g, dim in zip((self.given or self).unembeddings, self.given_dims, strict=True)]
        every = torch.arange(self.num_labels, device=heads[0].device)
        first = [first_copies(head) for head in heads]
        return tuple(None if torch.equal(found, every) else found for found in first)

    def labels_of_pair(self, first: int, second: int) -> Tensor | None:
        """For each label the first one that is equal to it in both models, [K]; None where all differ.

        The log-ratio of such labels is constant whatever the input, so that label searches take the first one alone.
        """
        one, other = self.equal_labels[first], self.equal_labels[second]
        if one is None or other is None:
            return None
        found = first_copies(torch.stack([one, other], dim=1))
        return None if torch.equal(found, torch.arange(len(found), device=found.device)) else found

    def groups_of_equal_labels(self, first: int, second: int) -> tuple[tuple[int, ...], ...]:
        """The labels that are equal in both models, by group, the smallest first."""
        equal = self.labels_of_pair(first, second)
        if equal is None:
            return ()
        stands_for, count = torch.unique(equal, return_counts=True)
        return tuple(tuple((equal == label).nonzero().flatten().tolist()) for label in stands_for[count > 1])

    def searched_labels(self, first: int, second: int) -> "LabelVectors":
        """The labels among which those of the pair are sought: of labels equal in both models the first one.

        All of them where fewer than M + 2 differ, which is what a subset beside a pivot and a left-out label needs.
        """
        equal = self.labels_of_pair(first, second)
        if equal is None or len(distinct := torch.unique(equal)) < max(3, min(self.dims[first], self.dims[second]) + 2):
            return self.labels
        self.labels.cloud.summary(one_pair(first, second, equal.device))  # which the labels taken share
        return replace(self.labels.of_labels(distinct), equal=equal)

    @cached_property
    def labels(self) -> LabelVectors:
        """The labels as functions of the input."""
        return label_vectors(self.joint, self.unembeddings)

    @cached_property
    def inputs(self) -> Cloud:
        """The inputs whose embeddings are there, as functions of the label."""
        return input_vectors(self.embeddings, self.labels.head_triangles, self.num_labels)

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """What the embeddings of each model span, around their mean over all inputs."""
        return tuple(self.joint.span(model) for model in range(len(self.names)))

    @cached_property
    def head_spans(self) -> tuple[Span, ...]:
        """What the unembeddings of each model span, around their mean."""
        return tuple(span_of_factor(factor, self.num_labels) for factor in self.labels.triangles)

    @cached_property
    def facts(self) -> tuple[Facts, ...]:
        """What decides which measures are defined."""
        sizes = int(self.joint.moments.n), len(self.embeddings[0]), self.num_labels
        ranks = [[span.rank for span in spans] for spans in (self.spans, self.head_spans)]
        models = zip(self.names, self.dims, *ranks, self.given_dims, strict=True)
        return tuple(Facts(name, *sizes, *rest) for name, *rest in models)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the models."""
        return self.joint.names

    @property
    def dims(self) -> tuple[int, ...]:
        """Representation dimension M_i of each model, without the constant coordinate of a biased head."""
        return self.labels.dims

    @cached_property
    def bare_embeddings(self) -> list[Tensor]:
        """f_i [N, M_i] without the constant coordinate of a biased head."""
        return [f[:, :dim] for f, dim in zip(self.embeddings, self.dims, strict=True)]

    @property
    def num_labels(self) -> int:
        """K."""
        return len(self.unembeddings[0])


def checked_predictions(
    embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor], names: Sequence[str], ids: Tensor | None = None
) -> Predictions:
    """What P models predict for inputs. Raises ValueError naming the model and the first value that is not finite.

    ``ids`` [N] are the inputs' names.
    """
    require_finite(embeddings, names, ids=ids)
    require_finite(unembeddings, names, "unembedding", "label")
    predicted = predictions(*([as_float64(x.detach()) for x in tensors] for tensors in (embeddings, unembeddings)))
    require_finite(list(predicted.log_partitions[..., None]), names, "largest logit", ids=ids)
    return predicted


def _check_shapes(embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor], names: Sequence[str]) -> None:
    if not len(embeddings) == len(unembeddings) == len(names):
        raise ValueError(
            f"received {len(embeddings)} embeddings, {len(unembeddings)} unembeddings and {len(names)} names of models"
        )
    if not embeddings:
        raise ValueError("there are no models to compare")
    shapes = [
        f"f {list(f.shape)} and g {list(g.shape)} of model {name!r}"
        for f, g, name in zip(embeddings, unembeddings, names, strict=True)
    ]
    for f, g, shape in zip(embeddings, unembeddings, shapes, strict=True):
        if f.dim() != 2 or g.dim() != 2 or f.shape[1] != g.shape[1] or 0 in (*f.shape, *g.shape):
            raise ValueError(f"a softmax model has f [N, M] and g [K, M], none of them 0, but received {shape}")
    if len({len(f) for f in embeddings}) > 1:
        raise ValueError(f"models are compared on the same N inputs, but received {', '.join(shapes)}")
    if len({len(g) for g in unembeddings}) > 1:
        raise ValueError(f"models are compared on the same K labels, but received {', '.join(shapes)}")
