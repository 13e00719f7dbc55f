"""The bound of one trained model at several depths T, with equal variances and with the closed-form ratio."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.diffusion.elbo import bits_per_dim, continuous_loss, step_loss
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.noisy_batch import NoisyBatch
from likeness.diffusion.process import broadcast
from likeness.diffusion.variance_ratio import FittedRatio

MAX_BINS = 32  # of gamma in which rho is fitted; where T is larger, the steps of a bin share their samples


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
    rest = torch.cat([_bits(t.reconstruction + t.latent, b) for t, b in zip(terms, evaluate_on, strict=True)])
    limit = torch.cat([_bits(continuous_loss(*batch.rate_error(model)), batch) for batch in evaluate_on])
    points = []
    for depth in depths:
        losses = _losses(model, depth, fit_on, evaluate_on)
        points.append(_point(depth, rest, limit, *losses))
    return [*points, _point(None, rest, limit, limit, limit)]


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
    """In bins of several steps where there are many, unlike :func:`likeness.diffusion.ratio_fitting.fit_ratio`, which
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
    """Mean and standard error of values [N]."""
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


@contextmanager
def _depth(model: DiffusionModel, num_steps: int) -> Iterator[None]:
    """The model's T is ``num_steps`` inside."""
    before = model.num_steps
    model.num_steps = num_steps
    try:
        yield
    finally:
        model.num_steps = before
