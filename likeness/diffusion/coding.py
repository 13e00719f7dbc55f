"""A lossless coder of images: bits back over the levels z_1, ..., z_0 of a diffusion model in finite depth.

Townsend et al. 2019 (BB-ANS, arXiv 1901.04866) over the hierarchy of Kingma et al. 2021 (VDM), for any encoder of the
mean. The sender takes z_1 ~ q(z_1 | x) and each z_s ~ q(z_s | z_t, x) off a stack of bits, and puts x by p(x | z_0),
each z_s by p(z_s | z_t) and z_1 by N(0, I) onto it. The receiver does the same backwards and gets the bits back. What
the stack grows by is the negative ELBO of this depth, variances and volatility, for any images, as long as q lies in
the window of p: see :attr:`Coded.outside`. A context is taken off before z_1, and its bits come onto the stack last.

z at each level is a multiple of the posterior's standard deviation over ``resolution``; every network sees these
numbers. Both densities are masses of the same cells, so that this costs nothing. Cells are counted from the middle of
a window that both sides know, around the mean of p(z_s | z_t).

Sender and receiver must compute the same numbers: the same weights, batches, type, device and number of threads.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from likeness.checks import require_positive
from likeness.diffusion.context import GaussianContext
from likeness.diffusion.hierarchy import Hierarchy
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import Posterior, alpha, batched, level_probabilities, posterior, repeated, sigma
from likeness.diffusion.sampling import ratio_on
from likeness.diffusion.schedules import NoiseSchedule, gamma_grid

CONTEXT_CELLS = 64  # in a standard deviation of p(w)
CONTEXT_WINDOW = 8  # standard deviations of p(w) on either side
WINDOW = 12  # standard deviations of the posterior on either side: the coder gives every cell in it some mass
_MARGIN = 4  # words below the lowest count of words: the coder's state, and a safe distance
_SLACK = 1.3  # initial words for each that the first batch is expected to need
_STATE = 3  # words at the top that hold the coder's state


class Coded(NamedTuple):
    """A stream, and what it takes to read it."""

    words: np.ndarray  # uint32: the stack above the initial words that it never reached
    kept: int  # how many it never reached
    initial: int  # how many there were
    images: int
    outside: float = 0.0  # share of z whose mean under q is not in the window around that under p: steps too few for it

    @property
    def net_bits(self) -> int:
        """By how much the images made the stack grow."""
        return 32 * (len(self.words) + self.kept - self.initial)

    @property
    def borrowed_bits(self) -> int:
        """Initial words that were used, which the stream holds too: once, for any number of images."""
        return 32 * (self.initial - self.kept)


class _Cells(NamedTuple):
    """The cells of one level, and p in them: in cells, from the middle of the window."""

    width: Tensor  # float64, a scalar or [B or 1, ...]
    middle: Tensor  # float64 [B, ...] whole numbers: the cell around the mean of p
    mean: Tensor  # [B, ...]
    deviation: Tensor  # a scalar or [B or 1, ...]

    def place(self, symbols: Tensor) -> Tensor:
        """z of cells, [B, ...]."""
        return (self.middle + symbols) * self.width

    def relative(self, mean: Tensor) -> Tensor:
        """A mean of z, [B, ...], in cells from the middle."""
        return mean / self.width - self.middle


class Coder:
    """Codes batches of grey levels onto a stack of random words, which are a function of the seed.

    Between two batches the words that the second one will take are scrambled, so that it finds random ones too.

    Args:
        model: in evaluation mode, in finite depth; with its ratio and its volatility.
        resolution: cells in a standard deviation of the posterior.
        seed: of the initial words.
        batch_size: images that are coded together: a part of the format, as its arithmetic is.

    Raises ModuleNotFoundError where the package constriction is missing, and ValueError in infinite depth, for a
    context that is not Gaussian and for a schedule that stands still.

    Example:
        >>> import torch
        >>> from likeness import DiffusionModel
        >>> from likeness.diffusion import Coder, IdentityEncoder, LinearSchedule
        >>> from likeness.networks import ScoreMLP
        >>> model = DiffusionModel(ScoreMLP((2,), width=8), IdentityEncoder(), LinearSchedule(), (2,), 256, num_steps=9)
        >>> coder = Coder(model.eval())
        >>> images = torch.tensor([[0, 255], [128, 127]])
        >>> torch.equal(coder.decode(coder.encode(images)), images)
        True
    """

    def __init__(self, model: DiffusionModel, resolution: int = 4, seed: int = 0, batch_size: int = 64) -> None:
        require_positive(resolution=resolution, batch_size=batch_size)
        if model.num_steps is None:
            raise ValueError("a coder needs finite depth, got num_steps=None: set num_steps")
        try:
            import constriction
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("the coder needs the package constriction: pip install constriction") from error
        self.model, self.resolution, self.seed, self.batch_size = model, resolution, seed, batch_size
        if not isinstance(model.context, GaussianContext | None):
            raise ValueError(f"a coder takes a Gaussian context, got {type(model.context).__name__}")
        self.gammas = _moving_grid(model.schedule.of_no_sample(), model.num_steps)  # scalars, or [1, ...]
        self._outside = self._seen = 0  # of z whose mean under q is not in the window
        self._new_stack = constriction.stream.stack.AnsCoder
        half, wide = WINDOW * resolution, CONTEXT_WINDOW * CONTEXT_CELLS
        self._window = constriction.stream.model.QuantizedGaussian(-half, half)
        self._context_window = constriction.stream.model.QuantizedGaussian(-wide, wide)
        self._categorical = constriction.stream.model.Categorical(perfect=False)

    @torch.no_grad()
    def encode(self, images: Tensor, labels: Tensor | None = None) -> Coded:
        """The stream of grey levels [N, ...] and their labels [N], if the model has any."""
        first = min(len(images), self.batch_size)
        initial = _random_words(math.ceil(_SLACK * self._need(first)), self.seed)
        stack = _Stack(self._new_stack(initial, True))
        self._outside = self._seen = 0
        for number, (batch, own) in enumerate(self._batches(images, labels)):
            if number:
                stack.scramble(self._need(len(batch)), self.seed + number)
            self._push(stack, batch, own)
        outside = self._outside / max(1, self._seen)
        return Coded(stack.words()[stack.lowest :], stack.lowest, len(initial), len(images), outside)

    @torch.no_grad()
    def decode(self, coded: Coded, labels: Tensor | None = None) -> Tensor:
        """The grey levels [N, ...], int64.

        Raises ValueError where the stack does not end as it began: the words are damaged, or this machine's
        arithmetic is not that of the sender.
        """
        initial = _random_words(coded.initial, self.seed)
        stack = _Stack(self._new_stack(np.concatenate([initial[: coded.kept], coded.words])))
        empty = torch.empty(coded.images, *self.model.input_shape, dtype=torch.int64, device=self._device)
        found = []
        for number, (batch, own) in reversed(list(enumerate(self._batches(empty, labels)))):
            found.append(self._pop(stack, batch, own))
            if number:
                stack.scramble(self._need(len(batch)), self.seed + number)
        if not stack.holds(initial):
            raise ValueError(
                "the stream does not end in the words that it began with: it is damaged, or this machine, device or "
                "number of threads computes other numbers than the one that wrote it"
            )
        return torch.cat(found[::-1]) if found else empty

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters(), torch.empty(())).device

    def _batches(self, images: Tensor, labels: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
        for start in range(0, len(images), self.batch_size):
            own = slice(start, start + self.batch_size)
            yield images[own], None if labels is None else labels[own]

    def _need(self, images: int) -> int:
        """Words that a batch takes off the stack: of a cell log2(resolution) + 2.05 bits a level."""
        bits = len(self.gammas) * (math.log2(self.resolution) + 2.05) * images * self.model.dims
        bits += (math.log2(CONTEXT_CELLS) + 2.05) * images * (self.model.context_size or 0)
        return math.ceil(bits / 32) + 64

    def _push(self, stack: "_Stack", images: Tensor, labels: Tensor | None) -> None:
        """Code a batch: its latent variables off the stack by q, and everything onto it by p."""
        x = self.model.scale(images)
        inferred = self._inferred_context(x)
        context = None if inferred is None else stack.pop(self._context_window, *inferred)
        levels, taken = self._levels_of(context, labels), []
        z: Tensor | None = None
        for level in range(len(self.gammas)):
            cells = levels.cells(level, z, x)
            inferred_z = cells.relative(levels.inferred(level, x, z))
            self._outside += int((inferred_z.abs() > WINDOW * self.resolution).sum())
            self._seen += inferred_z.numel()
            symbols = stack.pop(self._window, inferred_z, self._own_deviation)
            z = cells.place(symbols)
            taken.append((symbols, cells))
        assert z is not None
        stack.push_levels(self._categorical, images, levels.chances(z))
        for symbols, cells in reversed(taken):
            stack.push(self._window, symbols, cells.mean, cells.deviation)
        if context is not None:
            stack.push(self._context_window, context, *self._prior_context(len(x)))

    def _pop(self, stack: "_Stack", like: Tensor, labels: Tensor | None) -> Tensor:
        """The batch that :meth:`_push` coded, in the shape of ``like``, with its bits back on the stack."""
        has_context = self.model.context is not None
        context = stack.pop(self._context_window, *self._prior_context(len(like))) if has_context else None
        levels, taken = self._levels_of(context, labels), []
        z: Tensor | None = None
        for level in range(len(self.gammas)):
            cells = levels.cells(level, z, like)
            symbols = stack.pop(self._window, cells.mean, cells.deviation)
            taken.append((symbols, cells, z))
            z = cells.place(symbols)
        assert z is not None
        images = stack.pop_levels(self._categorical, levels.chances(z)).reshape(like.shape).to(like.device)
        x = self.model.scale(images)
        for level in reversed(range(len(self.gammas))):
            symbols, cells, z = taken[level]
            stack.push(self._window, symbols, cells.relative(levels.inferred(level, x, z)), self._own_deviation)
        inferred = self._inferred_context(x)
        if context is not None and inferred is not None:
            stack.push(self._context_window, context, *inferred)
        return images

    @property
    def _own_deviation(self) -> Tensor:
        """Of q in cells: all cells are so wide."""
        return torch.tensor(float(self.resolution), dtype=torch.float64)

    def _inferred_context(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Mean and deviation of q(w | x) in cells, float64 [B, K]; None without a context."""
        if self.model.context is None:
            return None
        mean, deviation = self.model.context.posterior(self.model.pixels(x))  # type: ignore[operator]  # a Gaussian one
        return CONTEXT_CELLS * mean.double(), CONTEXT_CELLS * deviation.double()

    def _prior_context(self, count: int) -> tuple[Tensor, Tensor]:
        """The same of p(w)."""
        mean = torch.zeros(count, self.model.context_size or 0, dtype=torch.float64, device=self._device)
        return mean, torch.full_like(mean, CONTEXT_CELLS)

    def _levels_of(self, context: Tensor | None, labels: Tensor | None) -> "_Levels":
        """What is known of a batch with its labels, and its contexts in cells, [B, K]."""
        model: Hierarchy = self.model
        if context is not None:
            model = self.model.given((context.double() / CONTEXT_CELLS).to(self.model.dtype))
        grid = self.gammas
        if model.schedule.of_each_sample:
            assert model.num_steps is not None
            grid = _moving_grid(model.schedule, model.num_steps)
        return _Levels(model, grid.to(self._device) if grid.dim() > 1 else grid, self.resolution, labels)


class _Levels:
    """z_1 (level 0) to z_0 of one batch, under p and under q."""

    def __init__(self, model: Hierarchy, gammas: Tensor, resolution: int, labels: Tensor | None) -> None:
        self.model, self.gammas, self.resolution, self.labels = model, gammas, resolution, labels
        self.ratio = ratio_on(model, gammas)

    def cells(self, level: int, z: Tensor | None, like: Tensor) -> _Cells:
        """Of z_1, or of z_s given the z of the level before."""
        if z is None:
            width = sigma(self.gammas[0]) / self.resolution
            zero = torch.zeros(like.shape, dtype=torch.float64, device=like.device)
            return _Cells(width, zero, zero, 1 / width)
        gamma_t, gamma_s = self.gammas[level - 1], self.gammas[level]
        known = z.to(self.model.dtype)
        x_hat = self.model.predict(known, repeated(gamma_t, known), self.labels).double()
        mean, variance = self.model.generative_step(z, gamma_s, gamma_t, x_hat, self.ratio, self.labels)
        width = self._posterior(z[:1], z[:1], z[:1], gamma_s, gamma_t).variance.sqrt() / self.resolution
        middle = (mean / width).round()
        return _Cells(width, middle, mean / width - middle, variance.sqrt() / width)

    def inferred(self, level: int, x: Tensor, z: Tensor | None) -> Tensor:
        """The mean of q(z_1 | x), or of q(z_s | z_t, x) with the z of the level before, [B, ...]."""
        gamma_s, x_s = self.gammas[level], self._mean(level, x)
        if z is None:
            return alpha(gamma_s) * x_s
        gamma_t, x_t = self.gammas[level - 1], self._mean(level - 1, x)
        return self._posterior(z, x_s, x_t, gamma_s, gamma_t).mean

    def chances(self, z_0: Tensor) -> np.ndarray:
        """p(x | z_0), float32 [pixels, levels]."""
        gamma_0 = self.gammas[-1]
        chances = level_probabilities(self.model.pixels(z_0) / alpha(gamma_0), gamma_0, self.model.levels)
        return np.ascontiguousarray(chances.flatten(1).T.float().cpu().numpy())

    def _posterior(self, z: Tensor, x_s: Tensor, x_t: Tensor, gamma_s: Tensor, gamma_t: Tensor) -> Posterior:
        kappa = self.model.step_volatility(batched(gamma_s, z), batched(gamma_t, z))
        return posterior(z, x_s, x_t, gamma_s, gamma_t, kappa)

    def _mean(self, level: int, x: Tensor) -> Tensor:
        t = x.new_full((len(x),), 1 - level / (len(self.gammas) - 1))
        return self.model.mean(x, t, self.labels).double()


def _moving_grid(schedule: NoiseSchedule, num_steps: int) -> Tensor:
    """gamma_1 down to gamma_0, [T + 1], or [T + 1, B or 1, ...]; raises ValueError where it stands still."""
    grid = gamma_grid(schedule, num_steps)
    if not (grid.diff(dim=0) < 0).all():
        raise ValueError(f"a coder needs a schedule that moves in each of the {num_steps} steps: set a floor")
    return grid if grid.dim() == 1 or schedule.of_each_sample else grid[:, None]


class _Stack:
    """Words of bits, last in, first out."""

    def __init__(self, coder: Any) -> None:
        self._coder = coder
        self.lowest: int = coder.num_words()  # words that no pop has reached

    def pop(self, model: Any, mean: Tensor, deviation: Tensor) -> Tensor:
        """Whole numbers off the stack, int64 in the shape of the means."""
        symbols = self._coder.decode(model, *_arrays(mean, deviation))
        self.lowest = min(self.lowest, self._coder.num_words() - _MARGIN)
        if self.lowest < 0:
            raise ValueError("the stream has no more words to read: it is damaged or another model's")
        return torch.from_numpy(symbols).to(mean.device, torch.int64).reshape(mean.shape)

    def push(self, model: Any, symbols: Tensor, mean: Tensor, deviation: Tensor) -> None:
        """What :meth:`pop` answers, back onto it."""
        self._coder.encode_reverse(_flat(symbols), model, *_arrays(mean, deviation))

    def pop_levels(self, model: Any, chances: np.ndarray) -> Tensor:
        """Levels off the stack, of their chances [pixels, levels]."""
        return torch.from_numpy(self._coder.decode(model, chances)).long()

    def push_levels(self, model: Any, images: Tensor, chances: np.ndarray) -> None:
        """What :meth:`pop_levels` answers, back onto it."""
        self._coder.encode_reverse(_flat(images), model, chances)

    def scramble(self, count: int, seed: int) -> None:
        """XOR the top words with random ones; a second time it undoes that.

        What one batch leaves on the stack are no random bits, where q is not p, and the next one would take unlikely
        latent variables of them.
        """
        words = self.words()
        first = max(0, len(words) - count)
        chosen = words[first:-_STATE]
        chosen ^= _random_words(len(chosen), seed)
        self._coder = type(self._coder)(words)
        self.lowest = min(self.lowest, first)

    def words(self) -> np.ndarray:
        """All of it, uint32."""
        found: np.ndarray = self._coder.get_compressed()
        return found

    def holds(self, words: np.ndarray) -> bool:
        """Whether it is again as it was when it was made of these words."""
        try:
            return np.array_equal(self._coder.get_compressed(unseal=True), words)
        except AssertionError:  # the package's way to say that it is not
            return False


def _random_words(count: int, seed: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 2**32, size=count, dtype=np.uint32)


def _flat(symbols: Tensor) -> np.ndarray:
    return np.ascontiguousarray(symbols.flatten().cpu().numpy().astype(np.int32))


def _arrays(mean: Tensor, deviation: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Both in full, float64."""
    means, deviations = (
        np.ascontiguousarray(part.flatten().cpu().numpy()) for part in (mean, deviation.expand_as(mean))
    )
    return means, deviations
