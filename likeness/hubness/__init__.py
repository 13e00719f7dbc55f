"""Measures of what was learned: see ``docs/measures.md`` for models' likeness and ``docs/hubness.md`` for hubness.

What compares models is reached by its module, or by name through ``catalogue``; neighbours, hubness and what reduces
it are exported here.
"""

from likeness.hubness.analysis import HubnessReport, analyse_hubness, hubness_of_counts, hubness_of_neighbours
from likeness.hubness.f_norm import FNorm
from likeness.hubness.feature_transforms import (
    Centring,
    DropComponents,
    FeatureTransform,
    RowCentring,
    RowZScore,
    Whitening,
    ZScore,
)
from likeness.hubness.indices import (
    HubnessIndices,
    HubRule,
    antihub_rate,
    asymmetry,
    atkinson,
    bad_k_occurrence,
    count_histogram,
    gini,
    indices_of,
    k_occurrence,
    k_skewness,
    merge_histograms,
    robin_hood,
    shannon_evenness,
)
from likeness.hubness.local_scaling import DisSimGlobal, DisSimLocal, LocalScaling, Nicdm
from likeness.hubness.mutual_proximity import MutualProximity
from likeness.hubness.null import (
    ThinnedEstimate,
    choose_queries,
    null_bad_occurrence,
    null_histogram,
    null_indices,
    thinned_estimate,
)
from likeness.hubness.reduction_base import AugmentedVectors, HubnessReduction, NotFittedError
from likeness.hubness.reductions import REDUCTIONS, Composition, reduction
from likeness.hubness.similarity_corrections import (
    Csls,
    DynamicInvertedSoftmax,
    InvertedSoftmax,
    LocalisedCentring,
    NearestNeighbourNormalisation,
)
from likeness.neighbours.approximate import ApproximateNeighbours, approximate_neighbours
from likeness.neighbours.classification import KnnChoice, KnnScore, McNemar, choose_k, knn_score, mcnemar
from likeness.neighbours.exact import Neighbours, nearest_neighbours, top_k

__all__ = [
    "REDUCTIONS",
    "ApproximateNeighbours",
    "AugmentedVectors",
    "Centring",
    "Composition",
    "Csls",
    "DisSimGlobal",
    "DisSimLocal",
    "DropComponents",
    "DynamicInvertedSoftmax",
    "FNorm",
    "FeatureTransform",
    "HubRule",
    "HubnessIndices",
    "HubnessReduction",
    "HubnessReport",
    "InvertedSoftmax",
    "KnnChoice",
    "KnnScore",
    "LocalScaling",
    "LocalisedCentring",
    "McNemar",
    "MutualProximity",
    "NearestNeighbourNormalisation",
    "Neighbours",
    "Nicdm",
    "NotFittedError",
    "RowCentring",
    "RowZScore",
    "ThinnedEstimate",
    "Whitening",
    "ZScore",
    "analyse_hubness",
    "antihub_rate",
    "approximate_neighbours",
    "asymmetry",
    "atkinson",
    "bad_k_occurrence",
    "choose_k",
    "choose_queries",
    "count_histogram",
    "gini",
    "hubness_of_counts",
    "hubness_of_neighbours",
    "indices_of",
    "k_occurrence",
    "k_skewness",
    "knn_score",
    "mcnemar",
    "merge_histograms",
    "nearest_neighbours",
    "null_bad_occurrence",
    "null_histogram",
    "null_indices",
    "reduction",
    "robin_hood",
    "shannon_evenness",
    "thinned_estimate",
    "top_k",
]
