"""The reductions' formulas on whole matrices, with NumPy and SciPy in float64: what the library is tested against.

d [n, n] are the distances between index points, rows [m, n] those of the queries; in-sample the rows are d.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import gammainc, gammaincc, log_ndtr, logsumexp

from tests.likeness.neighbours.brute_force import first_of_rows

Matrix = NDArray[np.float64]
INDICES = (
    "k_skewness",
    "robin_hood",
    "gini",
    "atkinson",
    "shannon_evenness",
    "antihub_rate",
    "max_occurrence",
    "asymmetry",
)


class Setting(NamedTuple):
    """An index, and queries unless the index asks for itself."""

    x: Matrix
    q: Matrix | None = None

    @property
    def asked(self) -> Matrix:
        return self.x if self.q is None else self.q

    def distances(self, metric: str) -> tuple[Matrix, Matrix]:
        """d [n, n] and rows [m, n]."""
        return pairs(self.x, self.x, metric), pairs(self.asked, self.x, metric)

    def nearest(self, d: Matrix, rows: Matrix, k: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of index points and of queries, in-sample both without the point itself."""
        return order(d, True)[:, :k], order(rows, self.q is None)[:, :k]


def pairs(q: Matrix, x: Matrix, metric: str) -> Matrix:
    """Distances [m, n]; smaller is nearer."""
    return -q @ x.T if metric == "dot" else cdist(q, x, metric)


def order(distances: Matrix, in_sample: bool) -> NDArray[np.int64]:
    """Index points by (distance, id), in-sample without the point itself."""
    return first_of_rows(distances, distances.shape[1] - in_sample, in_sample)


def others(d: Matrix) -> Matrix:
    """[n, n - 1], without the diagonal."""
    return d[~np.eye(len(d), dtype=bool)].reshape(len(d), -1)


def minus_log_normal(d: Matrix, sample: Matrix) -> Matrix:
    """-log p(d), columns or rows against the moments of the samples [m, s] of their points."""
    return -log_ndtr((sample.mean(1)[:, None] - d) / sample.std(1)[:, None])


def minus_log_gamma(d: Matrix, sample: Matrix) -> Matrix:
    mean, variance = sample.mean(1)[:, None], sample.var(1)[:, None]
    shape, x = mean**2 / variance, d * mean / variance
    lower = gammainc(shape, x)
    with np.errstate(divide="ignore"):  # the upper function underflows far out
        return np.where(lower < 0.5, -np.log1p(-lower.clip(max=0.5)), -np.log(gammaincc(shape, x)))


def mutual_proximity_law(setting: Setting, law: str, metric: str, stored: int | None = None) -> Matrix:
    """-log p_q p_x with the moments of all distances or of the smallest `stored`; the distance is 1 - p_q p_x."""
    d, rows = setting.distances(metric)
    own, asked = np.sort(others(d)), np.sort(others(d) if setting.q is None else rows)
    minus_log = {"normal": minus_log_normal, "gamma": minus_log_gamma}[law]
    return minus_log(rows, asked[:, :stored]) + minus_log(rows.T, own[:, :stored]).T


def mutual_proximity_rank(setting: Setting, metric: str) -> Matrix:
    d, rows = setting.distances(metric)
    in_sample, n = setting.q is None, len(d)
    of_q, of_x = rows.copy(), d.copy()
    np.fill_diagonal(of_x, np.inf)
    if in_sample:
        np.fill_diagonal(of_q, np.inf)
    farther_q = n - in_sample - np.array([(row[None] <= row[:, None]).sum(1) for row in of_q])
    farther_x = n - 1 - np.array([(of_x <= row[:, None]).sum(1) for row in rows])
    return 1 - farther_q * farther_x / ((n - in_sample) * (n - 1))  # whole numbers, so that equal products are equal


def mutual_proximity_joint(setting: Setting, metric: str) -> Matrix:
    d, rows = setting.distances(metric)
    return 1 - np.array([((row[None] > row[:, None]) & (d > row[:, None])).sum(1) for row in rows]) / len(d)


def local_scaling(setting: Setting, k: int, metric: str) -> Matrix:
    d, rows = setting.distances(metric)
    own, asked = np.sort(others(d)), np.sort(others(d) if setting.q is None else rows)
    return 1 - np.exp(-(rows**2) / (asked[:, k - 1, None] * own[:, k - 1]))


def nicdm(setting: Setting, k: int, metric: str) -> Matrix:
    d, rows = setting.distances(metric)
    own, asked = np.sort(others(d)), np.sort(others(d) if setting.q is None else rows)
    return rows / np.sqrt(asked[:, :k].mean(1)[:, None] * own[:, :k].mean(1))


def dissim_local(setting: Setting, k: int) -> Matrix:
    d, rows = setting.distances("sqeuclidean")
    of_x, of_q = setting.nearest(d, rows, k)
    centre_x, centre_q = setting.x[of_x].mean(1), setting.x[of_q].mean(1)
    return rows - ((setting.asked - centre_q) ** 2).sum(1)[:, None] - ((setting.x - centre_x) ** 2).sum(1)


def dissim_global(setting: Setting) -> Matrix:
    centre = setting.x.mean(0)
    squared = pairs(setting.asked, setting.x, "sqeuclidean")
    return squared - ((setting.asked - centre) ** 2).sum(1)[:, None] - ((setting.x - centre) ** 2).sum(1)


def similarities(q: Matrix, x: Matrix, metric: str) -> Matrix:
    return q @ x.T if metric == "dot" else 1 - cdist(q, x, "cosine")


def mean_similarity(setting: Setting, k: int, metric: str) -> Matrix:
    """Of each query to its k most similar index points, [m]."""
    s = similarities(setting.asked, setting.x, metric)
    return np.sort(others(s) if setting.q is None else s)[:, -k:].mean(1)


def bank_similarity(x: Matrix, bank: Matrix | None, k: int, metric: str) -> Matrix:
    """Of each index point to its k most similar queries of the bank, [n]."""
    return mean_similarity(Setting(x) if bank is None else Setting(bank, x), k, metric)


def csls(setting: Setting, k: int, metric: str, bank: Matrix | None = None) -> Matrix:
    s = similarities(setting.asked, setting.x, metric)
    return -(2 * s - mean_similarity(setting, k, metric)[:, None] - bank_similarity(setting.x, bank, k, metric))


def nnn(setting: Setting, k: int, alpha: float, metric: str, bank: Matrix | None = None) -> Matrix:
    return alpha * bank_similarity(setting.x, bank, k, metric) - similarities(setting.asked, setting.x, metric)


def log_partition(x: Matrix, bank: Matrix | None, beta: float, metric: str) -> Matrix:
    s = beta * similarities(x, x if bank is None else bank, metric)
    return np.asarray(logsumexp(others(s) if bank is None else s, axis=1))


def inverted_softmax(setting: Setting, beta: float, metric: str, bank: Matrix | None = None) -> Matrix:
    return log_partition(setting.x, bank, beta, metric) - beta * similarities(setting.asked, setting.x, metric)


def dynamic_inverted_softmax(setting: Setting, beta: float, activation: int, metric: str, bank: Matrix) -> Matrix:
    active = np.unique(order(-similarities(bank, setting.x, metric), False)[:, :activation])
    plain = -similarities(setting.asked, setting.x, metric)
    hit = np.isin(order(plain, setting.q is None)[:, 0], active)
    return np.where(hit[:, None], inverted_softmax(setting, beta, metric, bank), plain)


def hubness_indices(ids: NDArray[np.int64], n: int) -> dict[str, float]:
    """The indices of in-sample neighbours [n, k], from their definitions."""
    k = ids.shape[1]
    count = np.bincount(ids.ravel(), minlength=n).astype(float)
    centred, share = count - k, count[count > 0] / count.sum()
    edges = np.zeros((n, n), dtype=bool)
    edges[np.arange(n)[:, None], ids] = True
    values = (
        (centred**3).mean() / (centred**2).mean() ** 1.5,
        np.abs(centred).sum() / (2 * count.sum()),
        np.abs(count[:, None] - count).sum() / (2 * n * count.sum()),
        1 - np.sqrt(count).mean() ** 2 / count.mean(),
        -(share * np.log(share)).sum() / np.log(n),
        (count == 0).mean(),
        count.max(),
        1 - (edges & edges.T).sum() / edges.sum(),
    )
    return dict(zip(INDICES, map(float, values), strict=True))
