"""Grey levels 0 and 1, which are x = -1/2 and 1/2, with signs for noise: exact expectations of quadratic losses.

For x from N(0, 1/4) and Gaussian noise the mean over the four rows of a time is the expectation.
"""

import torch

from likeness.diffusion.diagnostics.by_depth import NoisyBatch
from likeness.diffusion.process import Noise

VARIANCE, LEVELS = 0.25, 2


def four_rows(t: torch.Tensor) -> NoisyBatch:
    """Four samples at each of the times [N]."""
    images = torch.tensor([[0], [0], [1], [1]], dtype=torch.uint8).repeat(len(t), 1)
    eps = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=torch.float64).repeat(len(t), 1)
    return NoisyBatch(images, Noise(t.repeat_interleave(4), eps, eps), None)


def middles(num_steps: int) -> torch.Tensor:
    """A time within each of the steps, float64."""
    return (torch.arange(num_steps, dtype=torch.float64) + 0.5) / num_steps
