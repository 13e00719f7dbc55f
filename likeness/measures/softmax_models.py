"""P softmax models on the same inputs, with everything that their pairwise measures share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from likeness.measures.cloud import Cloud, Pairs
from likeness.measures.joint_moments import JointMoments
from likeness.measures.log_probability_vectors import LabelVectors, input_vectors, label_vectors
from likeness.measures.logit_distance import Head, heads
from likeness.measures.moments import as_float64, require_finite
from likeness.measures.predictions import Predictions, predictions
from likeness.measures.representation import mean_canonical_correlations
from likeness.measures.spans import require_span


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
