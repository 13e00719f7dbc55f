"""What variances of another ratio than 1 gain in finite depth: predicted, learned, and in closed form.

Nielsen et al. 2024 (DiffEnc, arXiv 2310.19789), section 3.3 and appendices F and G. To first order in 1 / T the best
ratio gains the integral over t of l(t)^2 / (d T) nats, where l(t) is the diffusion loss at time t in infinite depth.
"""

from __future__ import annotations

import torch
from torch import Tensor

from likeness.diffusion.elbo import bits_per_dim, continuous_loss, step_loss
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.noise import training_noise
from likeness.diffusion.variance_ratio import LearnedRatio
from likeness.seeding import generator, mix, seeded
from scripts.bound_evaluation import BoundEvaluation
from scripts.depths import Depth, RatioName, at_depth
from scripts.evaluation_data import EvaluatedSplit
from scripts.studies.output import StudyRow

POINTS = 50  # of l(t)
BATCH_SIZE, LEARNING_RATE = 64, 0.01  # of a learned ratio
RATIOS: tuple[RatioName, ...] = ("one", "learned", "fitted")
_TRAINING, _RATES = 0x4A71, 0x4A7E  # set these streams apart from other uses of the same seed


def gains(evaluation: BoundEvaluation, num_steps: int, ratio_steps: int, rates: Tensor) -> StudyRow:
    """The bounds of one trained model in T steps, in bits per dimension, and by how much the ratios lower it.

    ``learned`` is a ratio that is trained for ``ratio_steps`` steps on the training split while the rest of the model
    stays what it is; ``fitted`` is the closed form of the training split; ``predicted`` follows from ``rates``.
    """
    model = evaluation.module.diffusion
    ratio = train_ratio(model, num_steps, evaluation.train, ratio_steps, evaluation.seed)
    with at_depth(model, num_steps, ratio):
        bpd: StudyRow = {name: evaluation.elbo(Depth(num_steps, name))["bpd"] for name in RATIOS}
    return {
        "T": num_steps,
        **{f"bpd_{name}": value for name, value in bpd.items()},
        "gain_predicted": predicted_gain(rates, num_steps, model.dims),
        **{f"gain_{name}": bpd["one"] - bpd[name] for name in RATIOS[1:]},
    }


def predicted_gain(rates: Tensor, num_steps: int, dims: int) -> float:
    """The integral of l(t)^2 / (d T) in bits per dimension, of ``rates`` l(t) at equally spaced t, in nats."""
    return float(bits_per_dim(rates.square().mean() / (dims * num_steps), dims))


@torch.no_grad()
def loss_rates(model: DiffusionModel, split: EvaluatedSplit, seed: int) -> Tensor:
    """l(t) in nats, [POINTS], at the middles of equal parts of [0, 1]: the mean over all samples of a split."""
    total = torch.zeros(POINTS, dtype=torch.float64)
    source = generator(seed, _RATES, device=split.device)
    for batch in split.batches("the loss by time"):
        x = model.scale(batch.x, model.dtype)
        eps = torch.randn(x.shape, generator=source, device=x.device, dtype=x.dtype)
        for number in range(POINTS):
            error = model.rate_error(x, x.new_full((len(x),), (number + 0.5) / POINTS), eps)
            total[number] += continuous_loss(*error).double().sum().cpu()
    return total / split.size


def train_ratio(
    model: DiffusionModel, num_steps: int, train: EvaluatedSplit, ratio_steps: int, seed: int
) -> LearnedRatio:
    """A ratio that starts at 1, trained on the model's bound in T steps; nothing else changes."""
    with seeded(mix(seed, _TRAINING)):
        ratio = LearnedRatio(gamma_min=model.schedule.gamma_min, gamma_max=model.schedule.gamma_max).to(train.device)
    optimizer = torch.optim.Adam(ratio.parameters(), lr=LEARNING_RATE)
    with at_depth(model, num_steps, None):
        for number in range(ratio_steps):
            rows = torch.randint(train.size, (BATCH_SIZE,), generator=generator(seed, _TRAINING, number))
            noise_seed = mix(seed, _TRAINING)
            loss = ratio_loss(model, ratio, train.split[rows].x.to(train.device), noise_seed, number)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return ratio.requires_grad_(False)


def ratio_loss(model: DiffusionModel, ratio: LearnedRatio, images: Tensor, seed: int, step: int) -> Tensor:
    """The diffusion term of grey levels [B, ...] in bits per dimension; only the ratio gets a gradient."""
    assert model.num_steps is not None
    x = model.scale(images, model.dtype)
    noise = training_noise(x, seed, step, rank=0, world_size=1)
    with torch.no_grad():
        found = model.step_error(x, noise.t, noise.eps)
    rho = ratio(found.gamma_s, found.gamma_t)
    return bits_per_dim(model.num_steps * step_loss(found.error, found.dgamma, rho), model.dims).mean()
