"""Measures of what was learned: see ``docs/measures.md`` for models' likeness and ``docs/hubness.md`` for hubness.

What compares models is reached by its module, or by name through ``catalogue``; neighbours, hubness and what reduces
it are exported here.
"""

from likeness.measures.approximate_neighbours import ApproximateNeighbours, approximate_neighbours
from likeness.measures.dissimilarity import DisSimGlobal, DisSimLocal
from likeness.measures.feature_transforms import Centring, FeatureTransform, RowCentring, RowZScore, ZScore
from likeness.measures.hubness import HubnessReport, analyse_hubness, hubness_of_counts, hubness_of_neighbours
from likeness.measures.hubness_indices import (
    HubnessIndices,
    HubRule,
    antihub_rate,
    atkinson,
    gini,
    indices_of,
    k_skewness,
    robin_hood,
    shannon_evenness,
)
from likeness.measures.hubness_null import null_bad_occurrence, null_histogram, null_indices
from likeness.measures.hubness_reduction import REDUCTIONS, Composition, reduction
from likeness.measures.inverted_softmax import DynamicInvertedSoftmax, InvertedSoftmax
from likeness.measures.k_occurrence import (
    asymmetry,
    bad_k_occurrence,
    count_histogram,
    k_occurrence,
    merge_histograms,
)
from likeness.measures.knn_classification import KnnChoice, KnnScore, choose_k, knn_score
from likeness.measures.local_scaling import LocalScaling, Nicdm
from likeness.measures.mcnemar import McNemar, mcnemar
from likeness.measures.mutual_proximity import MutualProximity
from likeness.measures.neighbours import Neighbours, nearest_neighbours, top_k
from likeness.measures.principal_components import DropComponents, Whitening
from likeness.measures.quantile_normalisation import FNorm
from likeness.measures.reduction_base import AugmentedVectors, HubnessReduction, NotFittedError
from likeness.measures.similarity_corrections import Csls, LocalisedCentring, NearestNeighbourNormalisation
from likeness.measures.thinned_queries import ThinnedEstimate, choose_queries, thinned_estimate

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
