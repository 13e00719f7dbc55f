"""How large the gradient of the diffusion loss is along the noise: which depths the networks are trained by."""

import torch
from torch import Tensor

from likeness.diffusion.elbo import bits_per_dim
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.times import stratified
from likeness.seeding import generator


def gradient_norms(
    model: DiffusionModel, images: Tensor, num_bins: int, seed: int, labels: Tensor | None = None
) -> Tensor:
    """|grad|^2, [G] in float64, of the mean diffusion loss of the samples [B, ...] at times within one of G bins.

    The bins divide [0, 1] evenly; times are stratified within a bin, and noise is a function of (seed, bin). The loss
    is in bits per dimension and the gradient that of the networks' weights, without the schedule's and the ratio's.
    It is of this one batch, so its expectation is above that of the expected gradient by the variance over batches.
    No ``.grad`` is touched.
    """
    x = model.scale(images, model.dtype)
    norms = []
    for index in range(num_bins):
        source = generator(seed, index)
        within = stratified(torch.rand((), generator=source), len(x))
        eps = torch.randn(x.shape, generator=source).to(x)
        norms.append(_squared_norm(model, x, ((index + within) / num_bins).to(x), eps, labels))
    return torch.stack(norms)


@torch.enable_grad()
def _squared_norm(model: DiffusionModel, x: Tensor, t: Tensor, eps: Tensor, labels: Tensor | None) -> Tensor:
    loss = bits_per_dim(model.diffusion_loss(x, t, eps, labels), x[0].numel()).mean()
    weights = [weight for network in (model.network, model.encoder) for weight in network.parameters()]
    trained = [weight for weight in weights if weight.requires_grad]
    gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    squares = [gradient.double().square().sum() for gradient in gradients if gradient is not None]
    return torch.stack(squares).sum()
