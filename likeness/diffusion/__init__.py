"""Variational diffusion models as hierarchical VAEs: schedules, encoders of the mean, ELBO terms, samplers.

Configurations and checkpoints name classes as they are exported here.
"""

from likeness.diffusion.encoders import DepthEncoder, IdentityEncoder, ParameterFreeEncoder, TrainableEncoder
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.schedules import (
    AffineSchedule,
    LinearSchedule,
    MonotoneSchedule,
    NoiseSchedule,
    PolynomialSchedule,
)
from likeness.diffusion.variance_ratio import ConstantRatio, FittedRatio, LearnedRatio, VarianceRatio

__all__ = [
    "AffineSchedule",
    "ConstantRatio",
    "DepthEncoder",
    "DiffusionModel",
    "FittedRatio",
    "IdentityEncoder",
    "LearnedRatio",
    "LinearSchedule",
    "MonotoneSchedule",
    "NoiseSchedule",
    "ParameterFreeEncoder",
    "PolynomialSchedule",
    "TrainableEncoder",
    "VarianceRatio",
]
