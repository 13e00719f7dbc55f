"""The rows of a head of any size around their mean, block by block, and bounds on the rounding of its logits."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from likeness.label_geometry.similarity import LabelRows, Progress, require_finite_rows, row_blocks
from likeness.neighbours.exact import smallest
from likeness.numerics import as_float64, full_precision

_MAX_LOGITS = 2**24  # of a temporary: 128 MB in float64
_SPREAD_ROWS = 16  # times M: rows that are enough to tell how unevenly a head's rows spread
_FLATTEST = 1e-12  # variance relative to the largest below which a direction counts as no flatter
_BIAS_SHARE = 0.25  # of the logit of a label in its own direction
_TINY = 1e-300
_SAFETY = 8  # times the usual bound on the rounding of a dot product


class CentredRows:
    """g [K, M] around its mean m and times a power of two, with the bias [K], likewise, as one more column.

    Logits g f + b are, up to a common number and a common factor, ``columns`` x with x [D] of :meth:`vector_of`, D
    being M or, with a bias that is not the same for all labels, M + 1. ``whitening`` [M, M] are coordinates in which
    the rows spread evenly: they are where a direction is looked for, and no answer depends on them.
    """

    def __init__(self, g: LabelRows, bias: Tensor | None, device: torch.device | str) -> None:
        """Reads g twice, block by block. Raises ValueError naming the first label that is not finite."""
        self.g, self.bias, self.device = g, None, torch.device(device)
        self.labels, self.dim = g.shape
        self.bias_spread, self._bias_middle, self._bias_exponent = 0.0, 0.0, 0
        if bias is not None:
            require_finite_rows(bias.unsqueeze(1))
            low, high = float(bias.min()), float(bias.max())
            if low < high:
                self.bias, self.bias_spread, self._bias_middle = as_float64(bias).cpu(), high - low, low / 2 + high / 2
                self._bias_exponent = _exponent(high / 2 - low / 2)
        self._mean = torch.zeros(self.dim, dtype=torch.float64, device=self.device)
        self._exponent = 0
        means, largest = [], 0.0
        for block in row_blocks(g.shape):
            rows = as_float64(g[block].to(self.device))
            require_finite_rows(rows, block.start)
            means.append(rows.mean(0) * (len(rows) / self.labels))
            largest = max(largest, float(rows.abs().max()))
        self._mean, self._exponent = torch.stack(means).sum(0), _exponent(largest)
        self.longest = 0.0  # length of a row of ``columns``
        self.whitening = self._whitening()

    @property
    def width(self) -> int:
        """D, of ``columns``."""
        return self.dim + (self.bias is not None)

    def columns(self, labels: slice | Sequence[int]) -> Tensor:
        """[n, D] of a block of labels, or of some of them, in float64."""
        return self.centred(self.rows(labels), labels)

    def centred(self, rows: Tensor, labels: slice | Sequence[int]) -> Tensor:
        """The columns [n, D] of labels with these rows [n, M]."""
        centred = (as_float64(rows.to(self.device)) - self._mean).mul_(2.0**-self._exponent)
        if self.bias is None:
            return centred
        chosen = labels if isinstance(labels, slice) else list(labels)
        own = (self.bias[chosen] - self._bias_middle) * 2.0**-self._bias_exponent
        return torch.cat([centred, own.to(centred).unsqueeze(1)], dim=1)

    def rows(self, labels: slice | Sequence[int]) -> Tensor:
        """The rows of g as they are."""
        if isinstance(labels, slice):
            return self.g[labels]
        return torch.cat([self.g[label : label + 1] for label in labels])

    def vector_of(self, features: Tensor) -> Tensor:
        """x [D] whose products with ``columns`` are the logits of features f [M], as said above."""
        f = features.cpu().numpy()
        if self.bias is None:
            x = np.ldexp(f, -_exponent(float(np.abs(f).max())))
        else:
            up = max(_exponent(float(np.abs(f).max())) + self._exponent, self._bias_exponent)
            x = np.append(np.ldexp(f, self._exponent - up), np.ldexp(1.0, self._bias_exponent - up))
        return torch.from_numpy(x).to(self.device)

    def features_of(self, x: Tensor) -> Tensor | None:
        """The inverse, for x [D] whose last entry is positive where there is a bias; None where they overflow."""
        values = x.cpu().numpy()
        if self.bias is not None:
            values = np.ldexp(values[:-1] / values[-1], self._bias_exponent - self._exponent)
        return torch.from_numpy(values) if np.isfinite(values).all() else None

    def beyond_bias(self, directions: Tensor, margins: Tensor) -> Tensor:
        """Features [Q, M] so far along directions that win by these margins without a bias that no bias matters."""
        directions = as_float64(directions)
        if self.bias is None:
            return directions
        unit = 2.0**-self._exponent
        return directions * (unit * 4 * self.bias_spread / margins).clamp(min=1).unsqueeze(1)

    def whitened(self, columns: Tensor) -> Tensor:
        """The same [n, D] in coordinates in which rows spread evenly and have a length of about 1."""
        points = columns[:, : self.dim] @ self.whitening / self.dim**0.5
        return torch.cat([points, columns[:, self.dim :]], dim=1)

    def unwhitened(self, z: Tensor) -> Tensor:
        """x [D] whose products with ``columns`` are those of z [D] with whitened ones."""
        z = z.to(self.device)
        return torch.cat([self.whitening @ z[: self.dim] / self.dim**0.5, z[self.dim :]])

    def start_of(self, labels: Sequence[int]) -> Tensor:
        """The whitened direction [D] of the labels' mean; with a bias, so far along it that that matters little."""
        mean = self.whitened(self.columns(labels)).mean(0)[: self.dim]
        length = mean.norm()
        direction: Tensor = mean / length.clamp(min=_TINY)
        if self.bias is None:
            return direction
        return torch.cat([direction, _BIAS_SHARE * (length if length > 0 else torch.ones_like(length))[None]])

    def depths(self, progress: Progress = iter) -> Tensor:
        """How far out each row lies in whitened coordinates, [K] in float32; 0 where another row is the same."""
        generator = torch.Generator().manual_seed(0)
        odd = torch.randint(-(2**61), 2**61, (self.dim,), generator=generator).to(self.device) * 2 + 1
        whitening, lengths, keys = self.whitening.float(), [], []
        for block in progress(row_blocks(self.g.shape)):
            rows = as_float64(self.g[block].to(self.device))
            keys.append(((rows + 0.0).view(torch.int64) * odd).sum(1))
            lengths.append((self.centred(rows, block)[:, : self.dim].float() @ whitening).norm(dim=1))
        _, place, sizes = torch.unique(torch.cat(keys), return_inverse=True, return_counts=True)
        return torch.cat(lengths).masked_fill(sizes[place] > 1, 0.0)

    def error(self, x: Tensor) -> Tensor:
        """How much a difference of two products of ``columns`` and x [Q, D] in x's type may be off, [Q].

        Entries of x are at most 1, those of the columns 2. A product of length D in any order is off by D roundings
        of |row| |x| at most, a row and x by one each when they are made; then there is underflow.
        """
        limits = torch.finfo(x.dtype)
        sizes = self.longest * as_float64(x).norm(dim=1)
        error: Tensor = _SAFETY * (x.shape[1] + 4) * (limits.eps * sizes + limits.tiny)
        return error

    def highest(
        self, x: Tensor, excluded: tuple[Tensor, Tensor], count: int, progress: Progress = iter
    ) -> tuple[Tensor, Tensor]:
        """For each row of x [Q, D or M] the ``count`` highest products with ``columns``, and their labels, [Q, count].

        Computed in x's type, in one pass over g. ``excluded`` are pairs of a row of x and a label that do not count,
        [P] each; where fewer labels are left, minus infinity. With M entries the bias does not count.
        """
        best = torch.full((len(x), 0), torch.inf, dtype=x.dtype, device=self.device)
        labels = torch.zeros(len(x), 0, dtype=torch.long, device=self.device)
        parts = torch.split(torch.arange(len(x), device=self.device), max(1, _MAX_LOGITS // _largest(self.g.shape)))
        with full_precision(self.device):
            for block in progress(row_blocks(self.g.shape)):
                columns = self.columns(block)[:, : x.shape[1]].to(x.dtype).T
                within = (excluded[1] >= block.start) & (excluded[1] < block.stop)
                rows, places = excluded[0][within], excluded[1][within] - block.start
                found = []
                for part in parts:
                    below = -x[part] @ columns
                    of_part = (rows >= part[0]) & (rows <= part[-1])
                    below[rows[of_part] - part[0], places[of_part]] = torch.inf
                    found.append(smallest(below, min(count, below.shape[1])))
                best = torch.cat([best, torch.cat([values for values, _ in found])], dim=1)
                labels = torch.cat([labels, torch.cat([ids for _, ids in found]) + block.start], dim=1)
                best, order = best.sort(dim=1, stable=True)
                best, labels = best[:, :count], labels.gather(1, order[:, :count])
        return -best, labels

    def _whitening(self) -> Tensor:
        """W [M, M] with W^T C W = 1, C being the covariance of rows spread over the head; sets ``longest``."""
        stride = max(1, self.labels // (_SPREAD_ROWS * self.dim))
        scatter = torch.zeros(self.dim, self.dim, dtype=torch.float64, device=self.device)
        for block in row_blocks(self.g.shape):
            columns = self.columns(block)
            self.longest = max(self.longest, float(columns.norm(dim=1).max()))
            some = columns[-block.start % stride :: stride, : self.dim]
            scatter += some.T @ some
        variances, axes = torch.linalg.eigh(scatter / (self.labels / stride))
        floor = _FLATTEST * float(variances.max())
        return axes / variances.clamp(min=floor).sqrt() if floor > 0 else torch.eye(self.dim).to(axes)


def _largest(shape: Sequence[int]) -> int:
    first = row_blocks(shape)[0]
    return int(first.stop - first.start)


def _exponent(size: float) -> int:
    """Of the power of two above a size, as far as float64 has its inverse."""
    return int(np.clip(np.frexp(size)[1], -1000, 1024))
