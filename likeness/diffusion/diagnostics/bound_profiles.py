"""Profiles of a trained model's bound: by gamma, by depth T, and of the variances of its generative steps.

By gamma they say at which noise the bits are, and where their estimate is uncertain; by depth, what the bound is with
equal variances and with the ratio that is fitted on training data in closed form. Of a multivariate schedule gamma is
its mean over dimensions: bins of it are bins of t, as it increases with t and is the same for all samples.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.diffusion.diagnostics.by_depth import NoisyBatch
from likeness.diffusion.elbo import AnyTerms, bits_per_dim, continuous_loss, step_loss
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import broadcast, mean_over_dimensions
from likeness.diffusion.variance_ratio import FittedRatio
from likeness.numerics import as_float64

SUMS = 5  # of 1, loss, loss^2, rate, rate^2
MAX_BINS = 32  # of gamma in which rho is fitted; where T is larger, the steps of a bin share their samples


class GammaProfile(NamedTuple):
    """In G bins of gamma; losses are in bits per dimension, and NaN in bins without samples.

    The integrand is the loss per unit of gamma: no schedule changes it, and its area is the diffusion term.
    """

    edges: Tensor  # [G + 1]
    samples: Tensor  # [G] how many
    loss: Tensor  # [G] mean loss of a sample at its time, of which the diffusion term is the mean over times
    variance: Tensor  # [G] of that loss between samples, times and noise
    integrand: Tensor  # [G]
    integrand_se: Tensor  # [G] standard error over samples

    @property
    def width(self) -> Tensor:
        """Of the bins, [G]."""
        return self.edges.diff()

    @property
    def centre(self) -> Tensor:
        """Of the bins, [G]."""
        return (self.edges[1:] + self.edges[:-1]) / 2

    @property
    def area(self) -> float:
        """The diffusion term in bits per dimension, as far as there are samples."""
        return float((self.integrand * self.width).nansum())

    @property
    def share(self) -> Tensor:
        """Of the diffusion term, [G]; it sums to 1."""
        return self.integrand.nan_to_num() * self.width / self.area


def gamma_edges(first: Tensor, last: Tensor, num_bins: int) -> Tensor:
    """Edges [num_bins + 1] of equal bins between two scalars, in float64 where the device has it."""
    kind = torch.float32 if first.device.type == "mps" else torch.float64
    places = torch.linspace(0, 1, num_bins + 1, device=first.device, dtype=kind)
    return first.to(kind) + (last.to(kind) - first.to(kind)) * places


def bin_sums(edges: Tensor, gamma: Tensor, dgamma_dt: Tensor, loss: Tensor) -> Tensor:
    """Sums [5, G], to be added over batches and ranks, of samples at gamma with their losses, [B] or gammas [B, ...].

    ``loss`` is of the sample's time, in bits per dimension: dgamma/dt times the loss per gamma. Gammas outside the
    edges count in the outermost bins.
    """
    loss = loss.to(edges)
    gamma, dgamma_dt = (mean_over_dimensions(values).to(edges) for values in (gamma, dgamma_dt))
    rate = loss / dgamma_dt
    values = torch.stack([torch.ones_like(loss), loss, loss.square(), rate, rate.square()])
    bins = torch.bucketize(gamma, edges[1:-1], right=True)
    return edges.new_zeros(SUMS, len(edges) - 1).index_add(1, bins, values)


def from_sums(edges: Tensor, sums: Tensor) -> GammaProfile:
    """The profile that the sums [5, G] of :func:`bin_sums` make."""
    count, loss, squared_loss, rate, squared_rate = sums.unbind()
    variance = _variance(count, loss, squared_loss)
    error = (_variance(count, rate, squared_rate) / count).sqrt()
    return GammaProfile(edges, count, loss / count, variance, rate / count, error)


def _variance(count: Tensor, total: Tensor, squares: Tensor) -> Tensor:
    """The unbiased one; NaN of fewer than two samples."""
    spread = (squares - total.square() / count).clamp(min=0) / (count - 1)
    return spread.masked_fill(count < 2, math.nan)


class DepthPoint(NamedTuple):
    """The negative ELBO in bits per dimension at one depth, with standard errors over samples.

    Excesses are over infinite depth with the same noise, which is why their errors are so much smaller.
    """

    num_steps: int | None  # T; None is infinite depth
    bpd: float  # with equal variances
    bpd_se: float
    excess: float
    excess_se: float
    fitted: float  # with the ratio fitted in closed form on other samples; in infinite depth it is 1
    fitted_se: float
    fitted_excess: float
    fitted_excess_se: float


@torch.no_grad()
def depth_curve(
    model: DiffusionModel, depths: Sequence[int], fit_on: Sequence[NoisyBatch], evaluate_on: Sequence[NoisyBatch]
) -> list[DepthPoint]:
    """A point for each T and one for infinite depth: the same model and noise, a ratio that it has left out.

    ``fit_on`` must be other samples than ``evaluate_on``, or the fitted bound is none.
    """
    terms = [batch.terms(model) for batch in evaluate_on]
    rest = torch.cat([_bits(_of_no_depth(t), b) for t, b in zip(terms, evaluate_on, strict=True)])
    limit = torch.cat([_bits(continuous_loss(*batch.rate_error(model)), batch) for batch in evaluate_on])
    points = []
    for depth in depths:
        losses = _losses(model, depth, fit_on, evaluate_on)
        points.append(_point(depth, rest, limit, *losses))
    return [*points, _point(None, rest, limit, limit, limit)]


def _of_no_depth(terms: AnyTerms) -> Tensor:
    """All terms but that of diffusion, summed, [B]."""
    return torch.stack([term for name, term in terms._asdict().items() if name != "diffusion"]).sum(0)


def _point(depth: int | None, rest: Tensor, limit: Tensor, equal: Tensor, fitted: Tensor) -> DepthPoint:
    values = (rest + equal, equal - limit, rest + fitted, fitted - limit)
    return DepthPoint(depth, *(number for value in values for number in _estimate(value)))


def _losses(
    model: DiffusionModel, depth: int, fit_on: Sequence[NoisyBatch], evaluate_on: Sequence[NoisyBatch]
) -> tuple[Tensor, Tensor]:
    """The diffusion term with equal variances and with the fitted ratio, in bits per dimension, [N] each."""
    with _depth(model, depth):
        ratio = _fitted(model, depth, fit_on)
        steps = [batch.step_error(model) for batch in evaluate_on]
    equal, fitted = [], []
    for step, batch in zip(steps, evaluate_on, strict=True):
        rho = ratio(step.gamma_s, step.gamma_t)
        equal.append(_bits(depth * step_loss(step.error, step.dgamma), batch))
        fitted.append(_bits(depth * step_loss(step.error, step.dgamma, rho), batch))
    return torch.cat(equal), torch.cat(fitted)


def _fitted(model: DiffusionModel, depth: int, fit_on: Sequence[NoisyBatch]) -> FittedRatio:
    """In bins of several steps where there are many, unlike :func:`likeness.diffusion.fitting.fit_ratio`, which
    takes T passes over the data."""
    first, last = (float(end) for end in model.schedule.ends(fit_on[0].noise.t))
    ratio = FittedRatio(min(depth, MAX_BINS), gamma_min=first, gamma_max=last).to(fit_on[0].images.device)
    for batch in fit_on:
        step = batch.step_error(model)
        kl = 0.5 * torch.expm1(broadcast(step.dgamma, step.error)) * step.error.square()
        ratio.observe(step.gamma_s, step.gamma_t, kl)
    return ratio


def _bits(nats: Tensor, batch: NoisyBatch) -> Tensor:
    return bits_per_dim(nats, batch.dims)


def _estimate(values: Tensor) -> tuple[float, float]:
    """Mean and standard error of values [N]; the error of a single one is NaN."""
    values = as_float64(values)
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return float(values.mean()), error


@contextmanager
def _depth(model: DiffusionModel, num_steps: int) -> Iterator[None]:
    """The model's T is ``num_steps`` inside."""
    before = model.num_steps
    model.num_steps = num_steps
    try:
        yield
    finally:
        model.num_steps = before


class RatioProfile(NamedTuple):
    """rho = log(sigma_P^2 / sigma_Q^2) in G bins of gamma, [G] each, NaN where no sample fell."""

    gamma: Tensor  # of the middles of the steps
    rho: Tensor  # the model's; 0 without a ratio
    optimal: Tensor  # log(1 + 2 E[q] / d), with q the step's KL at equal variances; DiffEnc, eq. 70


@torch.no_grad()
def ratio_profile(model: DiffusionModel, samples: Iterable[NoisyBatch], max_bins: int = 32) -> RatioProfile:
    """Over the steps that the samples' times fall into; a bin is a step where there are no more than ``max_bins``.

    The model's rho is averaged over dimensions where it has one for each. Raises ValueError in infinite depth.
    """
    sums = torch.zeros(4, 1)
    for batch in samples:
        step = batch.step_error(model)
        kl = 0.5 * torch.expm1(broadcast(step.dgamma, step.error)) * step.error.square()
        middle = mean_over_dimensions((step.gamma_s + step.gamma_t) / 2)
        rho = torch.zeros_like(middle) if model.ratio is None else model.ratio(step.gamma_s, step.gamma_t)
        rho = mean_over_dimensions(rho).expand_as(middle)
        values = torch.stack([torch.ones_like(middle), middle, rho, kl.flatten(1).mean(1)])
        edges = gamma_edges(*model.schedule.ends(middle), min(max_bins, model.num_steps or 1))
        bins = torch.bucketize(middle.to(edges), edges[1:-1])
        sums = sums.to(edges) + edges.new_zeros(4, len(edges) - 1).index_add(1, bins, values.to(edges))
    gamma, rho, kl = sums[1:] / sums[0]
    return RatioProfile(gamma, rho, torch.log1p(2 * kl))


class VolatilityProfile(NamedTuple):
    """kappa in G bins of gamma, [G] each, NaN where no sample fell."""

    gamma: Tensor  # mean over the bin's samples
    kappa: Tensor  # the model's; 1 without a volatility
    optimal: Tensor  # the best of infinite depth, see likeness.diffusion.fitting.fit_volatility
    without_parameters: Tensor  # 1 + 2 sigma^2, the best of DiffEnc-nt with an exact network


@torch.no_grad()
def volatility_profile(model: DiffusionModel, samples: Iterable[NoisyBatch], num_bins: int = 32) -> VolatilityProfile:
    """Over bins of gamma into which the samples' times fall; averaged over dimensions, by their dgamma/dt."""
    sums = torch.zeros(5, 1)
    for batch in samples:
        rate = batch.rate(model)
        half = 0.5 * rate.noise_error
        gamma = mean_over_dimensions(rate.gamma)
        kappa = torch.ones_like(gamma) if model.volatility is None else model.volatility(rate.gamma)
        kappa = mean_over_dimensions(kappa)
        weight = broadcast(rate.dgamma_dt, half)
        drift, noise = ((weight * part.square()).flatten(1).mean(1) for part in (half + rate.shift, half))
        values = [torch.ones_like(drift), gamma, kappa.expand_as(drift), drift, noise]
        edges = gamma_edges(*model.schedule.ends(drift), num_bins)
        bins = torch.bucketize(gamma.to(edges), edges[1:-1])
        sums = sums.to(edges) + edges.new_zeros(5, num_bins).index_add(1, bins, torch.stack(values).to(edges))
    gamma, kappa, drift, noise = sums[1:] / sums[0]
    return VolatilityProfile(gamma, kappa, (drift / noise).sqrt(), 1 + 2 * torch.sigmoid(gamma))
