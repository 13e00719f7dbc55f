"""Augmented vectors: any inner-product engine that searches them ranks as re-ranking does, on all queries."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from likeness.hubness.reduction_base import HubnessReduction
from likeness.hubness.reductions import reduction
from tests.likeness.hubness.reduction_checks import clustered, same_neighbours, unit

OF_UNIT_VECTORS: list[tuple[str, dict[str, Any]]] = [
    ("csls", {}),
    ("nnn", {"alpha": 0.75}),
    ("localised_centring", {}),
    ("inverted_softmax", {}),
    ("dynamic_inverted_softmax", {}),
    ("dissim_local", {}),
    ("dissim_global", {}),
    ("local_scaling", {}),
    ("local_scaling", {"metric": "cosine"}),
    ("nicdm", {}),
    ("nicdm", {"metric": "sqeuclidean"}),
]
OF_ANY_VECTORS = [
    (name, {**options, "metric": metric})
    for name, metrics, options in [
        ("csls", ("cosine", "dot"), {}),
        ("nnn", ("dot",), {}),
        ("inverted_softmax", ("dot",), {"beta": 3.0}),
        ("dissim_local", ("euclidean", "cosine"), {}),
        ("dissim_global", ("euclidean",), {}),
        ("local_scaling", ("euclidean", "sqeuclidean", "cosine"), {}),
        ("nicdm", ("euclidean", "sqeuclidean", "cosine"), {}),
    ]
    for metric in metrics
]


def first_ten(index: Tensor, queries: Tensor, in_sample: bool) -> Tensor:
    scores = queries @ index.T
    if in_sample:
        scores.fill_diagonal_(-torch.inf)
    return scores.topk(10, dim=1).indices


def require_same_ranking(fitted: HubnessReduction, queries: Tensor) -> None:
    vectors = fitted.augment()
    assert vectors.index.dtype == fitted.index.dtype
    own = first_ten(vectors.index, vectors.queries(None), True)
    assert same_neighbours(fitted.rerank().ids, own) == 1
    asked = first_ten(vectors.index, vectors.queries(queries), False)
    assert same_neighbours(fitted.rerank(queries).ids, asked) == 1


def ids_of(cases: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [" ".join([name, *map(str, options.values())]) for name, options in cases]


@pytest.mark.parametrize(("name", "options"), OF_UNIT_VECTORS, ids=ids_of(OF_UNIT_VECTORS))
def test_on_all_queries_among_unit_vectors(name: str, options: dict[str, Any]) -> None:
    x, queries = unit(clustered(2000, 48).double()), unit(clustered(500, 48, seed=1).double())
    fitted = reduction(name, **options).fit(x)
    assert fitted.augment().index.shape[1] <= 49
    require_same_ranking(fitted, queries)


@pytest.mark.parametrize(("name", "options"), OF_ANY_VECTORS, ids=ids_of(OF_ANY_VECTORS))
def test_on_all_queries_among_vectors_of_any_length(name: str, options: dict[str, Any]) -> None:
    x, queries = clustered(1000, 48, spread=0.6).double() * 3, clustered(200, 48, seed=1).double()
    require_same_ranking(reduction(name, **options).fit(x), queries)


def test_after_feature_transforms() -> None:
    x, queries = clustered(1000, 48).double(), clustered(200, 48, seed=1).double()
    require_same_ranking(reduction(["centring", "csls"]).fit(x), queries)
    require_same_ranking(reduction(["f_norm", "local_scaling"]).fit(x), queries)
    require_same_ranking(reduction(["z_score", ("centring", {"metric": "euclidean"})]).fit(x), queries)


@pytest.mark.parametrize(("name", "options"), OF_UNIT_VECTORS[:8], ids=ids_of(OF_UNIT_VECTORS[:8]))
def test_served_by_faiss(name: str, options: dict[str, Any]) -> None:
    faiss = pytest.importorskip("faiss")
    x, queries = unit(clustered(2000, 48)), unit(clustered(500, 48, seed=1))
    fitted = reduction(name, **options).fit(x)
    vectors = fitted.augment()
    engine = faiss.IndexFlatIP(vectors.index.shape[1])
    engine.add(vectors.index.numpy())
    found = torch.from_numpy(engine.search(vectors.queries(queries).numpy(), 10)[1])
    assert same_neighbours(fitted.rerank(queries).ids, found) >= 0.9995  # of float32's products


def test_vectors_of_float32_and_of_arrays() -> None:
    x = unit(clustered(300, 16))
    vectors = reduction("csls").fit(x.numpy().astype(np.float16)).augment()
    assert vectors.index.dtype == vectors.queries(x.numpy()).dtype == torch.float32
