"""P softmax models on the same inputs, checked, with everything that their pairwise measures share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from likeness.measures.cloud import Cloud, Pairs
from likeness.measures.log_probability_vectors import LabelVectors, input_vectors, label_vectors
from likeness.measures.logit_distance import Head, heads
from likeness.measures.moments import as_float64, require_finite
from likeness.measures.predictions import Predictions, predictions
from likeness.measures.spans import mean_canonical_correlations, require_span


@dataclass(frozen=True)
class SoftmaxModels:
    """p(y | x) = softmax_y f(x) . g(y) for P models, in float64."""

    embeddings: tuple[Tensor, ...]  # as given
    unembeddings: tuple[Tensor, ...]  # as given
    predictions: Predictions
    labels: LabelVectors  # as functions of the input
    heads: tuple[Head, ...]
    inputs: Cloud  # as functions of the label

    @classmethod
    def of(
        cls, embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor], names: Sequence[str] | None = None
    ) -> Self:
        """From f_i [N, M_i] and g_i [K, M_i]; a head with a bias has f_i = [f, 1] and g_i = [g, b].

        Raises ValueError, with the shapes, where N, K or a model's two M differ, N <= M or K <= M; with the model and
        the sample or label where a value is not finite; RankDeficientError, with the model and the shape, where the
        f or the differences of the g do not span their dimensions.
        """
        names = list(names or (str(number + 1) for number in range(len(embeddings))))
        _check_shapes(embeddings, unembeddings, names)
        require_finite(embeddings, names)
        require_finite(unembeddings, names, "unembedding", "label")
        all_f = tuple(as_float64(f.detach()) for f in embeddings)
        all_g = tuple(as_float64(g.detach()) for g in unembeddings)
        predicted = predictions(all_f, all_g)
        labels = label_vectors(all_f, all_g, predicted.log_partitions, names)
        _check_sizes(labels, len(all_f[0]))
        for root, name in zip(labels.roots, labels.names, strict=True):
            require_span(
                torch.linalg.svdvals(root), (len(all_f[0]), root.shape[1]), f"the embeddings of model {name!r}"
            )
        return cls(all_f, all_g, predicted, labels, heads(labels), input_vectors(all_f, all_g))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the models."""
        return self.labels.names

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


def _check_sizes(labels: LabelVectors, samples: int) -> None:
    for dim, name in zip(labels.dims, labels.names, strict=True):
        if samples <= dim:
            raise ValueError(f"at least M + 1 inputs are needed, but f of model {name!r} is [N, M] = {[samples, dim]}")
        if labels.num_labels <= dim:
            shape = [labels.num_labels, dim]
            raise ValueError(f"at least M + 1 labels are needed, but g of model {name!r} is [K, M] = {shape}")
