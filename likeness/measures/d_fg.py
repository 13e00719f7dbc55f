"""d_{f,g}: the largest d_SVD of two models' embeddings and unembeddings, where d_LLV has its minimum.

Nielsen, Marconato, Dittadi and Gresele 2025 (arXiv 2506.03784), Def 4.5: the larger of d_SVD(L_J^T f, L'_J^T f'), over
all M-subsets J of the labels that are compared in d_LLV, and d_SVD(N^T g, N'^T g') for its input set.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from likeness.measures.bounds import Bound, correlation_certificate
from likeness.measures.cloud import Pairs
from likeness.measures.comparison_options import ComparisonOptions
from likeness.measures.label_side import LabelChoice
from likeness.measures.label_subsets import subsets_beside_choice
from likeness.measures.softmax_models import SoftmaxModels
from likeness.measures.svd_distance import Interval, d_svd_g, max_d_svd_f_of_ties


class LabelSvd(NamedTuple):
    """The part of d_{f,g} that concerns f, for B pairs of models."""

    largest: Interval  # [B] over label subsets, at the chosen pivot and left-out label
    supremum: Interval  # [B] also over tied choices
    certificate: Bound  # [B] on ``largest``, without enumerating subsets


def label_svd(models: SoftmaxModels, pairs: Pairs, choice: LabelChoice, options: ComparisonOptions) -> LabelSvd:
    """Of pairs (i [B], j [B]) of models with one M. Raises ValueError where K < M + 2 or M differs."""
    dims = sorted(set(torch.tensor(models.dims)[torch.cat(pairs).cpu()].tolist()))
    if len(dims) > 1:
        raise ValueError(f"d_SVD compares representations of one dimension M, but received {dims}")
    dim = dims[0]
    subsets = subsets_beside_choice(
        models.num_labels, dim, max_subsets=options.max_subsets, num_sampled=options.num_subsets, seed=options.seed
    )
    cloud = models.labels.cloud
    largest, supremum = max_d_svd_f_of_ties(cloud, pairs, choice, subsets)
    return LabelSvd(largest, supremum, correlation_certificate(cloud, pairs, choice.pivot, choice.left_out, dim))


def input_svd(models: SoftmaxModels, pairs: Pairs, inputs: Tensor) -> Tensor:
    """d_SVD(N^T g, N'^T g') of pairs (i [B], j [B]) of models for their input sets [B, M + 1]; [B]."""
    return d_svd_g(models.inputs, pairs, inputs)


def d_fg(largest: Interval, of_g: Tensor) -> Interval:
    """The larger of both parts, [B]."""
    return Interval(*(torch.maximum(bound, of_g) for bound in largest))
