"""What single models of the frontier study are asked: densities of the times, bytes of a coder, the flow's bound."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from likeness.diffusion.coding import Coder
from likeness.diffusion.diagnostics.by_depth import gradient_norms
from likeness.diffusion.elbo import bits_per_dim
from likeness.diffusion.likelihoods import log_weight
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import stratified
from likeness.seeding import generator
from scripts.evaluate.bounds import BoundEvaluation, Depth, at_depth
from scripts.reporting import Row

BINS, IMAGES, GRADIENT_IMAGES = 64, 256, 32  # of t, and of training, for losses and for gradients
BATCH_SIZE = 16  # of the stratified times
FLOOR = 0.2  # share of the uniform density in the adaptive one
CODER_STEPS, CODER_PATHS, RESOLUTION, CODER_BATCH = 20, 8, 4, 64
FLOW_IMAGES, FLOW_DRAWS = 64, 2
_RATES, _PATHS = 0x4A7F, 0xC0DE  # set these streams apart from other uses of the same seed


def time_statistics(evaluation: BoundEvaluation) -> Row:
    """How densities of the times would change the variance of a loss and the second moment of its gradient.

    ``iid_<density>`` and ``stratified_<density>`` are B Var / L^2 of a batch's mean diffusion loss L of a model in
    infinite depth, ``gradient_<density>`` is E |gradient|^2 of a sample as a share of that at uniform times. Losses and
    gradients are taken of training images, in bins of t.
    """
    model, train = evaluation.module.diffusion, evaluation.train
    images = train.split[torch.arange(min(IMAGES, train.size))].x
    first, second = loss_moments(model, images, evaluation.seed)
    gradient = gradient_moments(model, images[:GRADIENT_IMAGES], evaluation.seed)
    row: Row = {}
    for name, density in densities(model, first, second).items():
        row |= {f"{kind}_{name}": value for kind, value in relative_variances(first, second, density).items()}
        row[f"gradient_{name}"] = float((gradient / density).mean() / gradient.mean())
    return row


def relative_variances(first: Tensor, second: Tensor, density: Tensor) -> Row:
    """B Var / L^2 of a batch's mean loss, of E r, E r^2 and the density in equal bins of t, each [BINS].

    Of independent times, and of stratified ones: then variances within a time remain, and the jump of r / p where the
    times wrap around.
    """
    level, weighted = first.mean().square(), first / density
    jump = (weighted[-1] - weighted[0]).square() / (12 * BATCH_SIZE)
    within = ((second - first.square()) / density).mean()
    return {
        "iid": float((second / density).mean() / level - 1),
        "stratified": float((within + jump) / level),
    }


def densities(model: DiffusionModel, first: Tensor, second: Tensor) -> dict[str, Tensor]:
    """Densities of t in equal bins, [BINS] of mean 1: uniform, alpha^2, and the losses' deviation with a floor."""
    gamma = model.schedule((torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS)
    deviation = (second - first.square()).clamp(min=0).sqrt()
    signal = torch.sigmoid(-gamma)
    return {
        "uniform": torch.ones(BINS, dtype=torch.float64),
        "signal": signal / signal.mean(),
        "adaptive": (1 - FLOOR) * deviation / deviation.mean() + FLOOR,
    }


@torch.no_grad()
def loss_moments(model: DiffusionModel, images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """E r and E r^2 of the diffusion loss at a time in each bin of t, in nats, float64 [BINS] each."""
    x = model.scale(images, model.dtype)
    losses = []
    for index in range(BINS):
        source = generator(seed, _RATES, index)
        within = stratified(torch.rand((), generator=source), len(x))
        eps = torch.randn(x.shape, generator=source)
        losses.append(model.diffusion_loss(x, (index + within) / BINS, eps).double())
    rates = torch.stack(losses)
    return rates.mean(1), rates.square().mean(1)


def gradient_moments(model: DiffusionModel, images: Tensor, seed: int) -> Tensor:
    """E |gradient|^2 of a single sample's loss at a time in each bin of t, float64 [BINS]."""
    with _trainable(model):
        norms = [gradient_norms(model, images[[row]], BINS, seed + row) for row in range(len(images))]
    return torch.stack(norms).mean(0)


@contextmanager
def _trainable(model: DiffusionModel) -> Iterator[None]:
    model.requires_grad_(True)
    try:
        yield
    finally:
        model.requires_grad_(False)


@torch.no_grad()
def coded_sizes(evaluation: BoundEvaluation) -> Row:
    """What a lossless coder takes for the test images in bits per dimension, beside their bound at its depth.

    Its ratio is fitted. ``coder_se`` is the error of the difference between net size and bound: the coder draws one
    path for each image, the bound ``CODER_PATHS``.
    """
    model, split = evaluation.module.diffusion, evaluation.split
    images = split.split[torch.arange(split.size)].x.long()
    depth = Depth(CODER_STEPS, "fitted", "one" if model.volatility is None else "learned")
    with at_depth(model, depth.num_steps, *evaluation.variances(depth)):
        coder = Coder(model, RESOLUTION, evaluation.seed, CODER_BATCH)
        coded = coder.encode(images)
        lossless = torch.equal(coder.decode(coded), images)
        source = generator(evaluation.seed, _PATHS)
        paths = [
            torch.cat([log_weight(model, part, source) for part in images.split(CODER_BATCH)])
            for _ in range(CODER_PATHS)
        ]
    bits = bits_per_dim(-torch.stack(paths), model.dims)
    of_a_path = float(bits.var(0).mean().sqrt()) / split.size**0.5
    return {
        "coder_net": coded.net_bits / images.numel(),
        "coder_borrowed": coded.borrowed_bits / images.numel(),
        "coder_elbo": float(bits.mean()),
        "coder_se": of_a_path * (1 + 1 / CODER_PATHS) ** 0.5,
        "coder_lossless": lossless,
    }


def flow_bounds(evaluation: BoundEvaluation) -> Row:
    """ODE-TN with one draw in each cell and an estimated trace, and the ELBO of the same images."""
    size = min(FLOW_IMAGES, evaluation.split.size)
    few = replace(evaluation, split=replace(evaluation.split, size=size), draws=FLOW_DRAWS)
    flow, elbo = few.dequantised_flow("hutchinson", 1, None), few.elbo(Depth(None, "one"), uniform=True)
    row: Row = {"flow": flow["bpd"], "flow_draw_se": flow["bpd_draw_se"], "flow_solver": flow["bpd_solver"]}
    return row | {"flow_elbo": elbo["bpd"], "flow_elbo_draw_se": elbo["bpd_draw_se"]}
