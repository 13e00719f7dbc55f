"""The diffusion models of the authors of MuLAN, as this project's.

Sahoo et al. 2024 (arXiv 2312.13236) store a model as a configuration and Flax parameters. Neither says whether the
network predicts the noise or the velocity: that is a matter of which of two programs trained it. What is different
here, on purpose:

- A context that is k of m is drawn with Gumbel noise and charged the order in which it is drawn, as a bound must be.
  Theirs is drawn with the noise of ``topk_noise_type``, which the program for velocities ignores, evaluated without
  noise, and charged the divergence of one softmax.
- Samples have contexts of their own from the prior; what they draw during training has one and the same.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_modules.diffusion import VariationalDiffusion
from lightning_modules.published.model_config import option, parameter, require_only
from likeness.diffusion import ContextPolynomial, GaussianContext, TopKContext
from likeness.diffusion.elbo import Prediction
from likeness.networks import ContextUNet, PositionScoreUNet, ScoreUNet
from likeness.networks.score_networks import FOURIER_EXPONENTS

# Each with the value that all published models have.
ONLY = {
    "condition": "input",
    "encoder": "unet",
    "gamma_type": "poly_fixedend",
    "z_conditioning": True,
    "model_time": False,
    "epsilon": 0.0,
    "sigma_prior": 1.0,
    "reparam_type": "true",
    "velocity_from_epsilon": False,
    "trace_matching": False,
}
SCORE_NETWORKS: dict[str, type[ScoreUNet]] = {"vdm": ScoreUNet, "ldm": PositionScoreUNet}


def mulan(
    params: Mapping[str, Any],
    config: Mapping[str, Any],
    input_shape: Sequence[int] | None,
    prediction: Prediction | None,
) -> VariationalDiffusion:
    """The model at random weights, of the sizes that the parameters and the configuration tell.

    Raises ValueError naming an option that is unknown, for a shape that the parameters do not have, and without a
    prediction.
    """
    require_only(config, ONLY)
    if prediction is None or prediction == "x":
        raise ValueError(
            f"prediction must be said of a MuLAN, which does not say it itself: v or eps, got {prediction!r}"
        )
    size, gaussian = config["latent_size"], option(config, "latent_type", ("gaussian", "topk")) == "gaussian"
    shared: dict[str, Any] = {
        "width": config["sm_n_embd"],
        "attention": config["with_attention"],
        "dropout": config["sm_pdrop"],
        "fourier_exponents": FOURIER_EXPONENTS if config["with_fourier_features"] else (),
    }
    infer = functools.partial(ContextUNet, **shared, depth=_depth(params), variances=gaussian)
    choice = {} if gaussian else {"k": config["latent_k"]}
    network = SCORE_NETWORKS[option(config, "unet_type", tuple(SCORE_NETWORKS))]
    return VariationalDiffusion(
        input_shape=_shape(params, gaussian, input_shape),
        levels=int(config["vocab_size"]),
        network=functools.partial(network, **shared, depth=config["sm_n_layer"], context_size=size),
        schedule=functools.partial(
            ContextPolynomial,
            gamma_min=float(config["gamma_min"]),
            gamma_max=float(config["gamma_max"]),
            floor=0.0,
            context_size=size,
            width=len(parameter(params, "gamma/dense_1/bias")),
        ),
        prediction=prediction,
        context=functools.partial(GaussianContext if gaussian else TopKContext, size=size, network=infer, **choice),
    )


def _depth(params: Mapping[str, Any]) -> int:
    """How many blocks lead to the middle of what infers the context."""
    start = "encoder_model/down.block_"
    return len({path.removeprefix(start).partition("/")[0] for path in params if path.startswith(start)})


def _shape(params: Mapping[str, Any], gaussian: bool, input_shape: Sequence[int] | None) -> tuple[int, ...]:
    """(C, H, W), of which the parameters know C and H W; an image is a square unless ``input_shape`` says otherwise."""
    channels = len(parameter(params, "score_model/conv_out/bias"))
    last = "dense_layer_final_mu" if gaussian else "dense_layer_final"
    positions = len(parameter(params, f"encoder_model/{last}/kernel"))
    side = math.isqrt(positions)
    shape = (channels, side, side) if input_shape is None else tuple(input_shape)
    if len(shape) != 3 or shape[0] != channels or shape[1] * shape[2] != positions:
        known = f"of {channels} channels and {positions} positions"
        raise ValueError(f"input_shape must be (C, H, W) {known}, as the parameters are, got {list(shape)}")
    return shape
