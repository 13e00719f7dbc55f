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

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple, Self

import torch
from torch import Tensor

from likeness.numerics import (
    FactoredMoments,
    as_float64,
    first_copies,
    length,
    require_finite,
    triangle,
)
from likeness.similarity.cloud import Cloud, padded
from likeness.similarity.predictions import Predictions, centred_head, predictions
from likeness.similarity.undefined import Facts
from likeness.spans import CONSTANT, Span, coarsest, span_of_rows, span_tolerance, spanned_axes


@dataclass(frozen=True)
class JointMoments:
    """Moments of a(x) = [f_1; Z_1; ...; f_P; Z_P] over inputs, with the layout of its P models.

    ``dims`` are the models' representation dimensions M_i; D = sum of (M_i + 1). ``names`` are for messages, and
    ``dtype`` is the type that the embeddings came in, which says what of them is rounding.
    """

    moments: FactoredMoments
    dims: tuple[int, ...]
    names: tuple[str, ...]
    dtype: torch.dtype = torch.float64

    @classmethod
    def of(cls, embeddings: Sequence[Tensor], log_partitions: Tensor, names: Sequence[str]) -> Self:
        """Of f_i [N, M_i] and Z [P, N]."""
        moments = FactoredMoments.of(joint_features(embeddings, log_partitions))
        return cls(moments, tuple(f.shape[1] for f in embeddings), tuple(names), coarsest(embeddings))

    def embedding(self, model: int) -> slice:
        """Where f of a model lies among the D features, without the constant coordinate of a biased head."""
        start = self._starts[model]
        return slice(start, start + self.bare_dim(model))

    def bare_dim(self, model: int) -> int:
        """M_i without the constant coordinate of a biased head."""
        return self.dims[model] - self.has_bias(model)

    def log_partition(self, model: int) -> int:
        """Where Z of a model lies among the D features."""
        return self._starts[model] + self.dims[model]

    def has_bias(self, model: int) -> bool:
        """Whether the last of several coordinates of f was 1 on every input: it carries a head's bias."""
        return self._biased[model]

    @cached_property
    def _biased(self) -> tuple[bool, ...]:
        _, mean, factor = self.moments
        last = [self.log_partition(model) - 1 for model in range(len(self.dims))]
        constant = ((mean[last] == 1) & ~factor[:, last].any(0)).tolist()
        return tuple(dim > 1 and own for dim, own in zip(self.dims, constant, strict=True))

    def span(self, model: int) -> "Span":
        """What the embeddings of a model span, around their mean."""
        block = self.embedding(model)
        n, mean, factor = self.moments
        tolerance = span_tolerance(None, self.dtype, (int(n), block.stop - block.start))
        return Span.of(factor[:, block], n.sqrt() * mean[block].abs(), tolerance)

    def span_basis(self, model: int, tau: float | None = None) -> Tensor | None:
        """An orthonormal basis [M, r] of what the embeddings of a model span, 0 < r < M; None where they span all.

        None too for N <= M, where no more can be spanned, and for constant embeddings; ``tau`` as in
        :func:`likeness.spans.reduce_to_span`.
        """
        n, mean, factor = self.moments
        block, dim = self.embedding(model), self.bare_dim(model)
        if n <= dim:
            return None
        basis = spanned_axes(
            factor[:, block], n.sqrt() * mean[block].abs(), span_tolerance(tau, self.dtype, (int(n), dim))
        )
        return basis if 0 < basis.shape[1] < dim else None

    def in_bases(self, bases: Sequence[Tensor | None]) -> "JointMoments":
        """Of [f_i B_i, 1] in the place of the f_i that have a basis B_i [M_i, r_i], less their means."""
        _, mean, factor = self.moments
        means: list[Tensor] = []
        factors: list[Tensor] = []
        dims: list[int] = []
        for model, basis in enumerate(bases):
            whole, z = slice(self._starts[model], self.log_partition(model)), [self.log_partition(model)]
            if basis is None:
                means, factors = [*means, mean[whole], mean[z]], [*factors, factor[:, whole], factor[:, z]]
                dims.append(self.dims[model])
                continue
            spanned = factor[:, self.embedding(model)] @ basis
            rank = spanned.shape[1]
            means += [mean.new_zeros(rank), mean.new_ones(1), mean[z]]
            factors += [spanned, spanned.new_zeros(len(spanned), 1), factor[:, z]]
            dims.append(rank + 1)
        moments = FactoredMoments(self.moments.n, torch.cat(means), torch.cat(factors, dim=1))
        return JointMoments(moments, tuple(dims), self.names, self.dtype)

    @property
    def _starts(self) -> list[int]:
        return [0, *accumulate(dim + 1 for dim in self.dims)]


def joint_features(embeddings: Sequence[Tensor], log_partitions: Tensor) -> Tensor:
    """Rows [f_1; Z_1; ...; f_P; Z_P], [N, D] in float64, from f_i [N, M_i] and Z [P, N]."""
    models = zip(embeddings, log_partitions, strict=True)
    return torch.cat([torch.column_stack([as_float64(f), z]) for f, z in models], dim=1)


def mean_canonical_correlations(bases: Sequence[Tensor]) -> Tensor:
    """m_CCA of all pairs of P representations, [P, P], from orthonormal bases [n, M_i] of what they span, centred."""
    dims = torch.tensor([basis.shape[1] for basis in bases], device=bases[0].device)
    joint = torch.cat(list(padded(bases)), dim=1)
    products = (joint.T @ joint).view(len(bases), -1, len(bases), joint.shape[1] // len(bases)).transpose(1, 2)
    correlations: Tensor = torch.linalg.svdvals(products).clamp(max=1)  # the padding adds zeros
    return correlations.sum(-1) / torch.minimum(dims[:, None], dims)


@dataclass(frozen=True)
class LabelVectors:
    """The K labels of P models as functions of the input, in coordinates where a dot product is a covariance.

    lp(y | x) = u_y(x) - Z(x) - log K, with the centred logits u = W f and W the centred unembeddings. Variances are
    over inputs, with N - 1 in the denominator. Biases are constant over inputs: they move ``mean`` alone.
    """

    samples: float  # N
    names: tuple[str, ...]
    heads: tuple[Tensor, ...]  # W_i [K, M_i], without biases
    roots: tuple[Tensor, ...]  # [R, M_i], the coordinates of the functions f(x)
    cloud: Cloud  # K points in R dimensions: centred u_y, offset -Z
    mean: Tensor  # [P, K] of u_y, over inputs
    equal: Tensor | None = None  # of all labels the first one that is equal, which stands for it; None: itself

    @property
    def ids(self) -> Tensor:
        """What the K labels are called."""
        every = torch.arange(self.num_labels, device=self.mean.device)
        return every if self.equal is None else torch.unique(self.equal)

    @property
    def dims(self) -> tuple[int, ...]:
        """Representation dimension M_i of each model, without the constant coordinate of a biased head."""
        return tuple(head.shape[1] for head in self.heads)

    @property
    def num_labels(self) -> int:
        """K."""
        return self.mean.shape[1]

    def of_labels(self, index: Tensor) -> "LabelVectors":
        """Some of the labels, which stay what they are: p(y | x) is that among all labels."""
        cloud = Cloud(self.cloud.own[:, index], self.cloud.axes, self.cloud.offset, self.cloud.size)
        return replace(self, heads=tuple(head[index] for head in self.heads), cloud=cloud, mean=self.mean[:, index])


def label_vectors(joint: JointMoments, unembeddings: Sequence[Tensor], weights: Tensor | None = None) -> LabelVectors:
    """Of joint moments over the inputs and g_i [K, M_i]; with weights of the labels, [K], of sqrt(w_y) u_y."""
    sizes = [size for g in unembeddings for size in (g.shape[1], 1)]
    roots = torch.split(joint.moments.root, sizes, dim=1)
    heads = [centred_head(g, weights) for g in unembeddings]
    means = torch.split(joint.moments.mean, sizes)[::2]
    mean = torch.stack([head @ f for head, f in zip(heads, means, strict=True)])
    dims = [joint.bare_dim(model) for model in range(len(unembeddings))]
    heads = [head[:, :dim] for head, dim in zip(heads, dims, strict=True)]
    functions = [_live(f, own)[:, :dim] for f, own, dim in zip(roots[::2], means, dims, strict=True)]
    return LabelVectors(
        samples=float(joint.moments.n),
        names=joint.names,
        heads=tuple(heads),
        roots=tuple(functions),
        cloud=Cloud.of_maps(heads, functions, torch.stack([-z.squeeze(1) for z in roots[1::2]])),
        mean=mean,
    )


def _live(root: Tensor, mean: Tensor) -> Tensor:
    """The coordinates [R, M] of functions with means [M], without what rounding leaves of the constant ones."""
    return root * (length(root, 0) > CONSTANT * mean.abs())


def input_vectors(embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor]) -> Cloud:
    """The N inputs of P models as functions of the label, N points in at most min(K, sum M_i) dimensions.

    A dot product of points is the covariance over labels of two of lp(. | x), with K - 1 in the denominator: Z
    is constant over labels.
    """
    joint = torch.cat([centred_head(g) for g in unembeddings], dim=1)
    root = triangle(joint) if joint.shape[0] > joint.shape[1] else joint
    maps = torch.split(root / max(1, len(joint) - 1) ** 0.5, [g.shape[1] for g in unembeddings], dim=1)
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
        bases = [self.joint.span_basis(model, tau) for model in range(len(self.names))]
        if all(basis is None for basis in bases):
            return self
        parts = [self._in_basis(model, basis) for model, basis in enumerate(bases)]
        embeddings, unembeddings = zip(*parts, strict=True)
        given = self.given or self
        return replace(
            self, joint=self.joint.in_bases(bases), unembeddings=unembeddings, embeddings=embeddings, given=given
        )

    def _in_basis(self, model: int, basis: Tensor | None) -> tuple[Tensor, Tensor]:
        f, g = self.embeddings[model], self.unembeddings[model]
        if basis is None:
            return f, g
        dim, block = self.joint.bare_dim(model), self.joint.embedding(model)
        mean = self.joint.moments.mean[block]
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
        return replace(self.labels.of_labels(distinct), equal=equal)

    @cached_property
    def labels(self) -> LabelVectors:
        """The labels as functions of the input."""
        return label_vectors(self.joint, self.unembeddings)

    @cached_property
    def inputs(self) -> Cloud:
        """The inputs whose embeddings are there, as functions of the label."""
        return input_vectors(self.embeddings, self.unembeddings)

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """What the embeddings of each model span, around their mean over all inputs."""
        return tuple(self.joint.span(model) for model in range(len(self.names)))

    @cached_property
    def head_spans(self) -> tuple[Span, ...]:
        """What the unembeddings of each model span, around their mean."""
        return tuple(span_of_rows(head) for head in self.labels.heads)

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
