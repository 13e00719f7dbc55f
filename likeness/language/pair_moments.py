"""What a stream of positions leaves of two language models: sums, joint moments, label counts and a few positions.

Their size depends neither on the number of positions nor on that of labels times positions; only the sums by document
grow, with the number of documents.
"""

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from likeness.checks import require_positive
from likeness.language.document_sums import DocumentSums
from likeness.language.token_pass import MEMORY, QUANTITIES, Head, Positions, Visit, kl_with_rest
from likeness.numerics import FactoredMoments, as_float64, at_least_float32, require_finite
from likeness.seeding import hashed
from likeness.similarity.joint_moments import JointMoments, joint_features
from likeness.similarity.metric import FREE, empty_store, filled, keep
from likeness.similarity.predictions import mean_row
from likeness.similarity.softmax_models import SoftmaxModels
from likeness.spans import epsilon, type_of

OF_ALL_LABELS = ("kl_12_with_rest", "kl_21_with_rest")


class PairMoments:
    """Two language models over the same V tokens, or over the same ones among others, seen at batches of positions.

    Args:
        first, second: the heads, over the same V labels; with ``kept`` labels, over these and any others.
        kept: the labels T that everything is said of; by default all V.
        names: of the models, for messages.
        top: length of the lists of likeliest labels, whose members are counted.
        stored: positions whose embeddings are kept for the input side of d_LLV, those with the smallest hashes of
            their ids.
        groups: of documents, drawn by a hash of their numbers, whose moments are kept apart, for errors by the
            jackknife; each takes up to 16 D^2 bytes, D = M + M' + 2.
        memory: bytes that a visit may take beside its inputs.
        rows, columns: of a tile of logits, in the place of what the memory allows.
    """

    def __init__(
        self,
        first: Head,
        second: Head,
        *,
        kept: Tensor | None = None,
        names: Sequence[str] = ("1", "2"),
        top: int = 10,
        stored: int = 2048,
        groups: int = 1,
        memory: int = MEMORY,
        rows: int | None = None,
        columns: int | None = None,
    ) -> None:
        require_positive(stored=stored, groups=groups)
        self.heads, self.names = (first, second), tuple(names)
        self.kept = _labels(kept, len(first.g), len(second.g))
        require_finite([head.g for head in self.heads], self.names, "output embedding", "token")
        for head, name in zip(self.heads, self.names, strict=True):
            if head.bias is not None:
                require_finite([head.bias], [name], "output bias", "token")
        top = min(top, len(first.g) if self.kept is None else len(self.kept))
        self.visit = Visit(first, second, self.kept, top, memory, rows, columns)
        self.sums = DocumentSums((*QUANTITIES, *OF_ALL_LABELS))
        self.parts = [FactoredMoments.of(torch.empty(0, sum(self.dims) + 2)) for _ in range(groups)]
        self.stored = empty_store(stored, sum(self.dims))
        self.epsilon = torch.inf  # of the type that the embeddings were computed in
        self._centres = [_centre(head) for head in self._heads]
        self.next_counts = torch.zeros(len(first.g), dtype=torch.long)
        self.occurrences = torch.zeros(2, len(first.g), dtype=torch.long)  # N_k of the tokens, k = top

    @property
    def dims(self) -> tuple[int, int]:
        """M_i, the constant coordinate of a head with a bias included."""
        first, second = (head.g.shape[1] + (head.bias is not None) for head in self.heads)
        return first, second

    def update(
        self,
        embeddings: tuple[Tensor, Tensor],
        next_token: Tensor,
        documents: Tensor | None = None,
        ids: Tensor | None = None,
    ) -> None:
        """Add positions: f1 [n, M], f2 [n, M'], next tokens [n], -1 where none is known.

        ``documents`` [n] are the numbers of their documents, by default each its own; ``ids`` [n] those of their
        prefixes, of which equal ones are stored once, by default the number of positions before. Raises ValueError
        for shapes that do not fit, and naming the model and position of a value that is not finite.
        """
        self._require_shapes(embeddings, next_token)
        ids = torch.arange(len(next_token)) + self.count if ids is None else ids.cpu()
        require_finite(embeddings, self.names, ids=ids)
        partitions, done = [], 0
        for block in self.visit(*embeddings, next_token):
            rows = slice(done, done + block.top.shape[1])
            values = torch.cat([block.values, self._of_all_labels(block)])
            self.sums.add(values, None if documents is None else documents[rows])
            for counts, top in zip(self.occurrences, block.top, strict=True):
                counts += torch.bincount(top.flatten(), minlength=len(counts)).cpu()
            partitions.append(block.log_partitions)
            done = rows.stop
        known = next_token[next_token >= 0].long()
        self.next_counts += torch.bincount(known, minlength=len(self.next_counts)).cpu()
        self._add_moments(embeddings, torch.cat(partitions, dim=1), documents, ids)

    def merge(self, other: Self) -> None:
        """Add what another one, of other positions and as many groups, has seen."""
        self.sums.merge(other.sums)
        self.parts = [FactoredMoments.merge(both) for both in zip(self.parts, other.parts, strict=True)]
        self.stored = _once(torch.cat([self.stored, other.stored]), len(self.stored))
        self.epsilon = min(self.epsilon, other.epsilon)
        self.next_counts += other.next_counts
        self.occurrences += other.occurrences

    def models(self, tau: float | None = None) -> SoftmaxModels:
        """The two as softmax models over the kept labels, in coordinates of what their embeddings span."""
        kept = torch.split(filled(self.stored)[1].to(self._device), list(self.dims), dim=1)
        return SoftmaxModels(self.joint(self.parts), tuple(map(_with_bias, self._heads)), kept).reduced(tau)

    def joint(self, parts: Sequence[FactoredMoments]) -> JointMoments:
        """Moments of the positions in some of the ``parts``, where the heads are."""
        moments = parts[0] if len(parts) == 1 else FactoredMoments.merge(parts)
        moved = FactoredMoments(*(field.to(self._device) for field in moments))
        return JointMoments(moved, self.dims, self.names, type_of(self.epsilon))

    @property
    def why_no_label_vectors(self) -> str | None:
        """Why nothing is said of label vectors or moments of logits: a soft cap, by name; None where it is."""
        for head, name in zip(self.heads, self.names, strict=True):
            if head.soft_cap is not None:
                return f"the logits of {name} are capped at {head.soft_cap:.6g}, and are no inner products"
        return None

    @property
    def _device(self) -> torch.device:
        return self._centres[0][0].device

    @property
    def count(self) -> int:
        """How many positions were seen."""
        return int(sum(float(part.n) for part in self.parts))

    @property
    def _heads(self) -> tuple[Head, ...]:
        return self.heads if self.kept is None else tuple(head.take(self.kept) for head in self.heads)

    def _require_shapes(self, embeddings: tuple[Tensor, Tensor], next_token: Tensor) -> None:
        for f, head, name in zip(embeddings, self.heads, self.names, strict=True):
            wanted = [len(next_token), head.g.shape[1]]
            if list(f.shape) != wanted or wanted[0] == 0:
                raise ValueError(f"the embeddings of model {name!r} must be [N, M] = {wanted}, but are {list(f.shape)}")

    def _of_all_labels(self, block: Positions) -> Tensor:
        masses = block["log_mass_1"], block["log_mass_2"]
        forward = kl_with_rest(block["kl_12"], *masses)
        return torch.stack([forward, kl_with_rest(block["kl_21"], *masses[::-1])])

    def _add_moments(
        self, embeddings: tuple[Tensor, Tensor], log_partitions: Tensor, documents: Tensor | None, ids: Tensor
    ) -> None:
        features = [f if head.bias is None else _with_one(f) for f, head in zip(embeddings, self.heads, strict=True)]
        self.epsilon = min(self.epsilon, epsilon(embeddings))
        # Partitions of centred logits, less log K, which is what the measures of labels take them to be.
        centred = []
        for f, z, (direction, shift) in zip(embeddings, log_partitions, self._centres, strict=True):
            centred.append(z - as_float64(f) @ direction - shift)
        samples = joint_features(features, torch.stack(centred)).cpu()
        group = torch.zeros(len(ids), dtype=torch.long)
        if documents is not None:
            group = hashed(documents.cpu().long()) % len(self.parts)
        for number in {*group.tolist()}:
            batch = FactoredMoments.of(samples[group == number])
            self.parts[number] = FactoredMoments.merge([self.parts[number], batch])
        rows = torch.column_stack([ids.double(), *(as_float64(f).cpu() for f in features)])
        self.stored = _once(torch.cat([self.stored, rows]), len(self.stored))


def _labels(kept: Tensor | None, labels: int, of_other: int) -> Tensor | None:
    """The kept labels ascending; None where these are all that both models have."""
    if kept is None:
        return None
    both = min(labels, of_other)
    ordered: Tensor = torch.unique(kept.long())
    if len(ordered) < 1 or int(ordered[0]) < 0 or int(ordered[-1]) >= both:
        raise ValueError(f"kept labels must be some of 0..{both - 1}, but are {len(ordered)} of {_ends(ordered)}")
    return ordered if len(ordered) < max(labels, of_other) else None


def _ends(ordered: Tensor) -> str:
    return f"{int(ordered[0])}..{int(ordered[-1])}" if len(ordered) else "none"


def _centre(head: Head) -> tuple[Tensor, float]:
    """The mean of g [M], and the mean bias with log K."""
    bias = 0.0 if head.bias is None else float(as_float64(head.bias).mean())
    return mean_row(head.g), bias + math.log(len(head.g))


def _with_one(f: Tensor) -> Tensor:
    return torch.cat([f, torch.ones_like(f[:, :1])], dim=1)


def _with_bias(head: Head) -> Tensor:
    """g, or [g, b], of its own type."""
    g = at_least_float32(head.g)
    return g if head.bias is None else torch.column_stack([g, head.bias])


def _once(rows: Tensor, size: int) -> Tensor:
    """The rows [id, ...] of a store, of equal ids the first one alone."""
    order = rows[:, 0].argsort(stable=True)
    ordered = rows[order, 0]
    repeated = torch.zeros(len(rows), dtype=torch.bool)
    repeated[order[1:]] = (ordered[1:] == ordered[:-1]) & (ordered[1:] != FREE)
    return keep(rows[~repeated], size)
