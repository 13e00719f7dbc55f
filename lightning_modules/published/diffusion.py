"""The diffusion models that authors published, as this project's.

Nielsen, Christensen, Dittadi and Winther 2024 (DiffEnc, arXiv 2310.19789) store a model as a configuration in JSON and
Flax parameters. Their four kinds are ``VDM2`` (eps-prediction) and ``VDM2_V``, ``S4V_NT`` (the encoder without
parameters) and ``S3VA`` (the trainable one). A configuration with a ``latent_type`` is one of MuLAN.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_modules.diffusion import DiffEnc, VariationalDiffusion
from lightning_modules.published.flax_weights import load_flax_weights
from lightning_modules.published.model_config import option, parameter, require_only
from lightning_modules.published.mulan import mulan
from likeness.diffusion import AffineSchedule, LinearSchedule, NoiseSchedule, PolynomialSchedule
from likeness.diffusion.elbo import Prediction
from likeness.networks import EncoderOutput, EncoderUNet, PyramidScoreUNet, ScoreUNet
from likeness.networks.encoder_networks import Kind
from likeness.networks.score_networks import FOURIER_EXPONENTS
from likeness.networks.unet import Downsampling

SCHEDULES: dict[str, type[NoiseSchedule]] = {
    "fixed": LinearSchedule,
    "poly10": PolynomialSchedule,
    "train_scalar": AffineSchedule,
}
ENCODER_KINDS: dict[str, Kind] = {"unet": "unet", "unet_mult_res": "unet_mult_res", "vdm_unet": "constant"}
# Of the encoder's output, each with the value that changes nothing: no published model has another.
UNUSED = {
    "gamma_reg": False,
    "end_reg": False,
    "end_half_reg": False,
    "k": 1.0,
    "init_var": 0.0,
    "min_var": 0.0,
    "use_x_var": False,
    "id_at_zero": False,
}


def load_published_diffusion(
    params: Mapping[str, Any],
    model_config: Mapping[str, Any],
    input_shape: Sequence[int] | None = None,
    prediction: Prediction | None = None,
) -> VariationalDiffusion:
    """The model of Flax parameters by path (``score_model/conv_in/kernel``, ...) and the authors' configuration.

    ``input_shape`` is (C, H, W); it is what the model samples, and a DiffEnc or VDM evaluates images of any size its
    networks take. The parameters tell C and, of a MuLAN, H W; without an ``input_shape`` its images are square, those
    of the others as small as the encoder's levels allow, and at least 32 x 32. ``prediction`` is what the network of a
    MuLAN predicts, which its configuration does not say.

    Raises ValueError naming an option that is unknown, and listing parameters that are missing, unexpected or of
    another shape.
    """
    if "latent_type" in model_config:
        model = mulan(params, model_config, input_shape, prediction)
    elif prediction is None:
        model = _diffenc(params, model_config, input_shape)
    else:
        raise ValueError(f"prediction is what a MuLAN does not say itself, ddpm_type says it here: got {prediction!r}")
    load_flax_weights(model.diffusion, {path: torch.as_tensor(_array(value)) for path, value in params.items()})
    return model.eval()


def _diffenc(
    params: Mapping[str, Any], model_config: Mapping[str, Any], input_shape: Sequence[int] | None
) -> VariationalDiffusion:
    channels = int(parameter(params, "score_model/conv_out/bias").shape[0])
    shape = tuple(input_shape) if input_shape is not None else (channels, *_size(params))
    kind = option(model_config, "ddpm_type", ("VDM2", "VDM2_V", "S4V_NT", "S3VA"))
    shared: dict[str, Any] = {
        "input_shape": shape,
        "levels": int(model_config["vocab_size"]),
        "network": _score_network(model_config["score_model_config"]),
        "schedule": functools.partial(
            SCHEDULES[option(model_config, "gamma_type", tuple(SCHEDULES))],
            gamma_min=float(model_config["gamma_min"]),
            gamma_max=float(model_config["gamma_max"]),
        ),
    }
    if kind in ("VDM2", "VDM2_V"):
        return VariationalDiffusion(**shared, prediction="v" if kind == "VDM2_V" else "eps")
    return DiffEnc(**shared, encoder=_encoder(model_config["encoder_config"]) if kind == "S3VA" else None)


def _score_network(config: Mapping[str, Any]) -> Any:
    kind = option(config, "m_type", ("unet", "unet_alt"))
    exponents = FOURIER_EXPONENTS if config["with_fourier_features"] else ()
    shared = {"width": config["n_embd"], "dropout": config["p_dropout"], "fourier_exponents": exponents}
    groups = config["num_groups_groupnorm"]
    if kind == "unet":
        depth, attention = config["n_layer"], config["with_attention"]
        return functools.partial(ScoreUNet, **shared, depth=depth, attention=attention, output_groups=groups)
    return functools.partial(
        PyramidScoreUNet,
        **shared,
        levels=config["n_layer"],
        blocks=1,
        mid_groups=groups,
        output_groups=groups,
        downsampling=_downsampling(config),
        doubling=config["channel_scaling"] == "double",
    )


def _encoder(config: Mapping[str, Any]) -> Any:
    network = config["nn_config"]
    require_only(config, UNUSED, "encoder_config")
    return functools.partial(
        EncoderUNet,
        kind=ENCODER_KINDS[option(network, "m_type", tuple(ENCODER_KINDS))],
        width=network["n_embd"],
        depth=network["n_layer"],
        output_groups=network["num_groups_groupnorm"],
        dropout=network["p_dropout"],
        attention=network["with_attention"],
        downsampling=_downsampling(network),
        doubling=network["channel_scaling"] == "double",
        output=EncoderOutput(tanh=config.get("m1_to_1", True)),
    )


def _downsampling(config: Mapping[str, Any]) -> Downsampling:
    if config["pooling"] and config["down_conv"]:
        raise ValueError("pooling and down_conv exclude each other, but model_config asks for both")
    return "max_pool" if config["pooling"] else "convolution" if config["down_conv"] else "none"


def _size(params: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width at which the encoder has as many levels as there are parameters for."""
    prefix = "encdec/inner_encoder/enc_model/down_blocks_"
    levels = {path.removeprefix(prefix).partition("/")[0] for path in params if path.startswith(prefix)}
    size = 8 * 2 ** len(levels) if levels else 32
    return size, size


def _array(value: Any) -> Tensor | Any:
    return value if isinstance(value, Tensor) else torch.from_numpy(value.copy())
