"""Approximate k nearest neighbours by FAISS, with the recall that they were measured to have."""

from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from likeness.checks import require_one_of
from likeness.neighbours.distances import DistanceName, PointDistances
from likeness.neighbours.exact import Neighbours, Ranking, ranked, require_enough, search, without_own
from likeness.seeding import generator


class ApproximateNeighbours(NamedTuple):
    """What was found, and how much of what there is to find that is."""

    neighbours: Neighbours
    recall: float  # mean share of the exact lists, over a sample of the queries


@torch.no_grad()
def approximate_neighbours(
    index: Tensor,
    k: int = 10,
    *,
    metric: DistanceName = "euclidean",
    queries: Tensor | None = None,
    include_self: bool = False,
    links: int = 16,
    ef: int = 64,
    sample: int = 1000,
    seed: int = 0,
) -> ApproximateNeighbours:
    """As :func:`likeness.neighbours.exact.nearest_neighbours`, by a graph that is searched greedily (HNSW).

    Malkov & Yashunin 2018: each point has `links` (M) links, and the `ef` best so far are kept while a query walks
    along them; more of both finds more. The distances of what is found are exact, its order is by (distance, id), and
    a query whose walk ends with too few is searched exactly. Not for hubness at low recall: lost first are the
    edges to antihubs. FAISS builds with several threads, after which the graphs of two runs differ a little.

    The recall is of `sample` queries that are drawn with `seed` and searched exactly. Raises ImportError that
    names the extra `ann` where FAISS is missing, and ValueError as the exact search does.
    """
    faiss = require_faiss()
    require_one_of(metric, get_args(DistanceName), "metric")
    distances = PointDistances(index, queries, metric)
    exclude_self = queries is None and not include_self
    require_enough(k, distances.n, exclude_self)
    graph = _graph(faiss, distances, metric, links, ef)
    listed = k + exclude_self
    graph.hnsw.efSearch = max(ef, listed)
    ids = torch.from_numpy(graph.search(distances.probes.numpy(force=True), listed)[1]).to(distances.device)
    found = _completed(distances, ids, k, exclude_self)
    return ApproximateNeighbours(found, _recall(distances, found, exclude_self, sample, seed))


def _graph(faiss: Any, distances: PointDistances, metric: DistanceName, links: int, ef: int) -> Any:
    measure = faiss.METRIC_INNER_PRODUCT if metric == "dot" else faiss.METRIC_L2
    graph = faiss.IndexHNSWFlat(distances.points.shape[1], links, measure)
    graph.hnsw.efConstruction = max(ef, graph.hnsw.efConstruction)
    graph.add(distances.points.numpy(force=True))
    return graph


def _completed(distances: PointDistances, ids: Tensor, k: int, exclude_self: bool) -> Neighbours:
    """Lists of k from the ids [m, k or k + 1] of a walk, in which -1 stands for what it did not find."""
    rows = torch.arange(distances.m, device=distances.device)
    found = ranked(distances.exact(rows, ids.clamp(min=0)), ids, ids.shape[1])
    if exclude_self:
        found = without_own(found, rows, k)
    short = (ids < 0).any(1).nonzero()[:, 0]
    if len(short):
        found.distances[short], found.ids[short] = search(Ranking(distances), short, k, exclude_self)
    return found


def _recall(distances: PointDistances, found: Neighbours, exclude_self: bool, sample: int, seed: int) -> float:
    if sample < 1:
        raise ValueError(f"sample must be at least 1 query, but it is {sample}")
    rows = torch.randperm(distances.m, generator=generator(seed))[:sample].to(distances.device)
    exact = search(Ranking(distances), rows, found.ids.shape[1], exclude_self)
    return float((found.ids[rows][:, :, None] == exact.ids[:, None]).any(2).double().mean())


def require_faiss() -> Any:
    """FAISS, or an ImportError that names the extra."""
    try:
        import faiss
    except ImportError as error:
        raise ImportError('approximate neighbours and indexes need FAISS: pip install -e ".[ann]"') from error
    return faiss
