"""The forward process q(z_t | x) = N(alpha_t x_t, sigma_t^2 I) in gamma = -log SNR, its noise, and the decoder.

Kingma et al. 2021 (VDM, arXiv 2107.00630) and Nielsen et al. 2024 (DiffEnc, arXiv 2310.19789), where the mean x_t of
the data depends on the depth t. The process is variance preserving: alpha^2 + sigma^2 = 1. Times and noise are
functions of where they are used, never of a generator's past. The decoder p(x | z_0) of data with grey levels is exact
under a uniform prior over the levels x_k = 2 (k + 1/2) / levels - 1: p(k | z_0) is proportional to
N(z_0 / alpha_0; x_k, exp(gamma_0)) (VDM, eq. 8).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.diffusion.times import TimeDensity
from likeness.seeding import generator, mix

_GOLDEN = 0.6180339887498949  # frac(n * golden) is spread more evenly over n than any other sequence of its kind
_TRAIN, _EVALUATE = 1, 2  # so that equal seeds for different uses give different numbers
_NEGLIGIBLE = 45.0  # nats under which a level's weight is lost in float64's rounding


def broadcast(values: Tensor, like: Tensor) -> Tensor:
    """[B] as [B, 1, ...], to be combined with ``like`` [B, ...]; scalars and values of every dimension stay."""
    return values if values.dim() in (0, like.dim()) else values.reshape(-1, *[1] * (like.dim() - 1))


def mean_over_dimensions(values: Tensor) -> Tensor:
    """[B] of values of every dimension, [B, ...]; [B] stay."""
    return values if values.dim() == 1 else values.flatten(1).mean(1)


def batched(gamma: Tensor, like: Tensor) -> Tensor:
    """A scalar gamma as [1], those of every dimension as they are, [B or 1, ...]; dtype and device of ``like``."""
    gamma = gamma.to(like)
    return gamma if gamma.dim() else gamma[None]


def repeated(gamma: Tensor, like: Tensor) -> Tensor:
    """A scalar gamma as [B], those of every dimension [B or 1, ...] as [B, ...], for ``like`` [B, ...]."""
    return batched(gamma, like).expand(len(like), *gamma.shape[1:])


def alpha(gamma: Tensor) -> Tensor:
    """sqrt(sigmoid(-gamma)): not sqrt(1 - sigma^2), which has lost all digits at small gamma."""
    return torch.sigmoid(-gamma).sqrt()


def sigma(gamma: Tensor) -> Tensor:
    """sqrt(sigmoid(gamma))."""
    return torch.sigmoid(gamma).sqrt()


def snr(gamma: Tensor) -> Tensor:
    """Signal-to-noise ratio alpha^2 / sigma^2 = exp(-gamma)."""
    return torch.exp(-gamma)


def diffuse(x_t: Tensor, gamma: Tensor, eps: Tensor) -> Tensor:
    """z_t = alpha_t x_t + sigma_t eps, of x_t and eps [B, ...] and gamma [B], a scalar or of every dimension."""
    gamma = broadcast(gamma, x_t)
    return alpha(gamma) * x_t + sigma(gamma) * eps


class Posterior(NamedTuple):
    """A Gaussian with independent dimensions."""

    mean: Tensor  # [B, ...]
    variance: Tensor  # [B, 1, ...] or a scalar; of a gamma or volatility of each dimension [B or 1, ...]


def posterior(
    z_t: Tensor, x_s: Tensor, x_t: Tensor, gamma_s: Tensor, gamma_t: Tensor, kappa: Tensor | None = None
) -> Posterior:
    """q(z_s | z_t, x) for depths s < t with data means x_s and x_t, [B, ...]; gammas are [B], [B or 1, ...] or scalars.

    With x_s = x_t = x it is VDM's (its eq. 25 to 27); in general DiffEnc's eq. 8 and 9. ``x_t`` may be a prediction.
    ``kappa``, [B] or [B or 1, ...], is the volatility: the noise of z_s is sqrt(1 - r) that of z_t and sqrt(r) new,
    with r = 1 - exp(-kappa dgamma). None is 1, which both papers have.
    """
    gamma_s, gamma_t = broadcast(gamma_s, z_t), broadcast(gamma_t, z_t)
    of_mean = of_variance = gamma_s - gamma_t
    if kappa is not None:
        kappa = broadcast(kappa, z_t)
        of_mean, of_variance = 0.5 * (1 + kappa) * of_mean, kappa * of_variance
    alpha_s, kept = alpha(gamma_s), -torch.expm1(of_mean)
    mean = alpha_s / alpha(gamma_t) * torch.exp(of_mean) * z_t + alpha_s * (kept * x_t + (x_s - x_t))
    return Posterior(mean, torch.sigmoid(gamma_s) * -torch.expm1(of_variance))


def stratified(offset: Tensor, size: int) -> Tensor:
    """[size] times, one in each interval [i / size, (i + 1) / size), all shifted by a uniform ``offset`` (a scalar).

    Kingma et al. 2021 (VDM), appendix I.1. Their variance is far below that of independent times.
    """
    places = torch.arange(size, device=offset.device, dtype=offset.dtype)
    return (offset + places / size) % 1


def spread_by_id(offset: float, ids: Tensor) -> Tensor:
    """Times [B] of samples with these ids, float64: each uniform over draws of ``offset``, evenly spread over ids.

    They do not depend on how the samples are divided into batches.
    """
    return (offset + ids.double() * _GOLDEN) % 1


def step_of(t: Tensor, num_steps: int) -> tuple[Tensor, Tensor]:
    """(s, t) with t at the end and s at the start of the step, of num_steps, that contains the time; both like t."""
    last = (t * num_steps).ceil().clamp(1, num_steps)
    return (last - 1) / num_steps, last / num_steps


class Noise(NamedTuple):
    """What an estimate of the ELBO draws for each of B samples."""

    t: Tensor  # [B]
    eps_0: Tensor  # [B, ...]
    eps: Tensor  # [B, ...]
    weight: Tensor | None = None  # [B], of the diffusion term, where times are not uniform
    eps_context: Tensor | None = None  # [B, K], of a model with a context

    def at_times_of(self, density: TimeDensity | None) -> "Noise":
        """With times of this density in place of the uniform ones; None leaves them."""
        return self if density is None else self._replace(**density(self.t)._asdict())


def training_noise(
    like: Tensor, seed: int, step: int, rank: int, world_size: int, context_size: int | None = None
) -> Noise:
    """The noise of this rank's batch, where ``like`` [B, ...] has the shape, device and dtype.

    Global batch row i W + r is row i of rank r, as the datamodules deal them out. Each rank draws for the whole
    global batch and takes its rows, so that the numbers of a sample are the same at any number of ranks W. Times
    are stratified over the global batch.
    """
    source = generator(seed, _TRAIN, step, device=like.device)
    size = len(like) * world_size
    offset = torch.rand((), generator=source, device=like.device, dtype=like.dtype)
    own = slice(rank, None, world_size)
    t = stratified(offset, size)[own]
    shapes = [like.shape[1:]] * 2 + ([] if context_size is None else [(context_size,)])
    drawn = [torch.randn(size, *shape, generator=source, device=like.device, dtype=like.dtype)[own] for shape in shapes]
    return Noise(t, drawn[0], drawn[1], eps_context=drawn[2] if len(drawn) == 3 else None)


def evaluation_noise(like: Tensor, ids: Tensor, seed: int, draw: int, context_size: int | None = None) -> Noise:
    """The noise of samples [B, ...] with these ids in this draw: of nothing else, not of batches, ranks or devices.

    Times cover [0, 1) evenly over any run of consecutive ids.
    """
    offset = mix(seed, _EVALUATE, draw) / 2**63
    source = torch.Generator()
    noise = torch.empty(2, *like.shape, dtype=torch.float32)  # for every dtype of ``like`` the same numbers
    context = torch.empty(len(like), context_size or 0, dtype=torch.float32)
    for row, sample in enumerate(ids.tolist()):
        source.manual_seed(mix(seed, _EVALUATE, draw, sample))
        noise[:, row] = torch.randn(noise[:, row].shape, generator=source, dtype=noise.dtype)
        context[row] = torch.randn(context[row].shape, generator=source, dtype=noise.dtype)
    eps_0, eps = noise.to(like)
    eps_context = None if context_size is None else context.to(like)
    return Noise(spread_by_id(offset, ids).to(like), eps_0, eps, eps_context=eps_context)


def scaled(levels_of_x: Tensor, levels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """x in (-1, 1) of integers 0 .. levels - 1; half a level short of the ends."""
    return (levels_of_x.to(dtype) + 0.5) * (2 / levels) - 1


def nearest_level(x: Tensor, levels: int) -> Tensor:
    """The likeliest level of x = z_0 / alpha_0, int64 in 0 .. levels - 1."""
    return (((x + 1) * levels / 2 - 0.5).round()).clamp(0, levels - 1).long()


def neighbours_within_reach(gamma_0: float, levels: int) -> int:
    """How many levels on either side of the nearest one carry any weight; at the papers' gamma_0 it is two."""
    spacing = 2 / levels * math.exp(-gamma_0 / 2)  # in standard deviations
    reach = math.ceil((math.sqrt(1 + 8 * _NEGLIGIBLE / spacing**2) - 1) / 2)
    return min(max(reach, 1), levels - 1)


def log_likelihood(levels_of_x: Tensor, z: Tensor, gamma_0: Tensor, levels: int, reach: int | None = None) -> Tensor:
    """log p(k | z_0) in nats for each dimension, shaped as k: of the data k, z = z_0 / alpha_0 and a scalar gamma_0.

    ``reach`` levels on either side of the one nearest to z are summed over, all of them if None: the memory is that
    times the data's. :func:`neighbours_within_reach` says how many make a difference.
    """
    nearest = nearest_level(z.detach(), levels)
    if reach is None or 2 * reach + 1 >= levels:
        away = _all_levels(nearest, levels)
    else:
        away = torch.arange(-reach, reach + 1, device=z.device).reshape(-1, *[1] * z.dim())
    own = _logits(z, nearest, levels_of_x.long() - nearest, gamma_0, levels)
    return own - _logits(z, nearest, away, gamma_0, levels).logsumexp(0)


def sample_level(z: Tensor, gamma_0: Tensor, levels: int, generator: torch.Generator | None = None) -> Tensor:
    """A draw from p(k | z_0), int64, of z = z_0 / alpha_0."""
    chances = level_probabilities(z, gamma_0, levels)
    return torch.multinomial(chances.flatten(1).T, 1, generator=generator).reshape(z.shape)


def level_probabilities(z: Tensor, gamma_0: Tensor, levels: int) -> Tensor:
    """p(k | z_0) of every level k, [levels, ...], of z = z_0 / alpha_0 and a scalar gamma_0."""
    nearest = nearest_level(z, levels)
    return _logits(z, nearest, _all_levels(nearest, levels), gamma_0, levels).softmax(0)


def _all_levels(nearest: Tensor, levels: int) -> Tensor:
    """How far each level, [levels, ...], is from the nearest one."""
    return torch.arange(levels, device=nearest.device).reshape(-1, *[1] * nearest.dim()) - nearest


def _logits(z: Tensor, nearest: Tensor, away: Tensor, gamma_0: Tensor, levels: int) -> Tensor:
    """log N(z; x_k, exp(gamma_0)) of the levels k = nearest + away, less that of the nearest; -inf of no level.

    Levels are the first axis: sums over a short last one are slow. The difference of squares is taken as a product,
    which keeps its digits for z far outside.
    """
    spacing = 2 / levels
    step = spacing * away.to(z.dtype)
    logits = torch.exp(-gamma_0) * step * (z - scaled(nearest, levels, z.dtype) - 0.5 * step)
    level = nearest + away
    return logits.masked_fill((level < 0) | (level >= levels), -torch.inf)
