"""Nearest neighbours and mutual proximity against their formulas over a dense matrix, and memory at a larger size."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from likeness.hubness.mutual_proximity import MutualProximity
from likeness.neighbours.exact import nearest_neighbours
from scripts.bench.timing import Contestant, Ratios, RatiosAndMemory, interleaved, peak_of

Array = NDArray[np.float64]

POINTS, DIM, K = 7600, 384, 10  # the size at which ratios and times are asked for
NEIGHBOURS_RATIO, NEIGHBOURS_SECONDS = 20.0, 0.6
PROXIMITY_RATIO, PROXIMITY_SECONDS = 5.0, 3.0
LARGE_POINTS, LARGE_DIM = 200_000, 128
LARGE = f"neighbours, n = {LARGE_POINTS:,}, d = {LARGE_DIM}"
GIGABYTES = 4.0

PLAIN, OURS, FAISS = "dense matrix, NumPy and SciPy", "in blocks", "FAISS IndexFlat"


def hubness(
    points: int = POINTS,
    dim: int = DIM,
    k: int = K,
    repeats: int = 3,
    proximity: bool = True,
    large: bool = False,
    device: Literal["cpu", "cuda"] = "cpu",
) -> RatiosAndMemory:
    """Seconds for the exact neighbours of all points, by Euclidean distance and by mutual proximity.

    Args:
        points: Points, each searched for among the others.
        dim: Dimension of the points.
        k: Neighbours of each.
        repeats: Rounds that are timed.
        proximity: Also re-rank by mutual proximity, with normal laws over all distances.
        large: Also measure the memory that the neighbours of 200,000 points take: for minutes.
        device: Where the blocks are computed.
    """
    x = random_points(points, dim)
    size = f"n = {points:,}, d = {dim}, k = {k}"
    neighbours = f"neighbours, {size}"
    plain, ours, *faiss = _times_of_neighbours(x, k, repeats, device)
    comparisons = {neighbours: (plain, ours), **{f"{neighbours}, for reference": (other, ours) for other in faiss}}
    required, seconds = {neighbours: NEIGHBOURS_RATIO}, {neighbours: NEIGHBOURS_SECONDS}
    if proximity:
        name = f"mutual proximity, {size}"
        comparisons[name] = _times_of_proximity(x, k, repeats, device)
        required[name], seconds[name] = PROXIMITY_RATIO, PROXIMITY_SECONDS
    asked = (points, dim, k) == (POINTS, DIM, K)
    wanted = (required, seconds) if asked else ({}, {})
    ratios = Ratios(f"hubness, float32, {device}", comparisons, *wanted)
    return RatiosAndMemory(ratios, LARGE, GIGABYTES, peak_of(search_large) if large else None)


def random_points(n: int, d: int) -> Tensor:
    """[n, d] of a normal distribution, in float32: the Euclidean hubs of a high dimension."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def search_large() -> None:
    """The neighbours of more points than a dense matrix of distances has room for."""
    nearest_neighbours(random_points(LARGE_POINTS, LARGE_DIM), K)


def plain_neighbours(x: Array, k: int) -> NDArray[np.int64]:
    """Ids [n, k]: all distances, every row sorted."""
    return np.argsort(_distances(x), axis=1, kind="stable")[:, :k]


def plain_mutual_proximity(x: Array, k: int) -> NDArray[np.int64]:
    """Ids [n, k] by 1 - P(D_x > d) P(D_y > d), with normal laws of every point's distances to the others."""
    from scipy.stats import norm

    distances, others = _distances(x), len(x) - 1
    np.fill_diagonal(distances, 0)
    mean = distances.sum(1) / others
    sd = np.sqrt((distances**2).sum(1) / others - mean**2)
    farther = norm.sf(distances, mean[:, None], sd[:, None])
    proximity = farther * farther.T
    np.fill_diagonal(proximity, -np.inf)
    return np.argsort(1 - proximity, axis=1, kind="stable")[:, :k]


def _distances(x: Array) -> Array:
    from scipy.spatial.distance import cdist

    distances: Array = cdist(x, x)
    np.fill_diagonal(distances, np.inf)
    return distances


def _times_of_neighbours(x: Tensor, k: int, repeats: int, device: str) -> list[Contestant]:
    array, on_device = x.double().numpy(), x.to(device)
    work: dict[str, Callable[[], object]] = {
        PLAIN: lambda: plain_neighbours(array, k),
        OURS: lambda: nearest_neighbours(on_device, k),
    }
    if find_spec("faiss") is not None:
        work[FAISS] = lambda: _faiss_neighbours(x.numpy(), k)
    return interleaved(work, repeats, device, at_least=0.5)


def _times_of_proximity(x: Tensor, k: int, repeats: int, device: str) -> tuple[Contestant, Contestant]:
    array, on_device = x.double().numpy(), x.to(device)
    work: dict[str, Callable[[], object]] = {
        PLAIN: lambda: plain_mutual_proximity(array, k),
        OURS: lambda: MutualProximity().fit(on_device).rerank(k=k),
    }
    plain, ours = interleaved(work, repeats, device, at_least=0.5)
    return plain, ours


def _faiss_neighbours(x: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    from likeness.neighbours.approximate import require_faiss

    index = require_faiss().IndexFlatL2(x.shape[1])
    index.add(x)
    ids: NDArray[np.int64] = index.search(x, k + 1)[1]
    return ids
