"""Networks: f maps inputs to R^M, g maps labels to R^M; score networks and inner encoders of diffusion models."""

from likeness.networks.convolutional import CNN, ResNet18
from likeness.networks.encoder_output import EncoderOutput
from likeness.networks.encoder_unet import EncoderUNet
from likeness.networks.heads import LabelTable, LinearHead
from likeness.networks.mlp import MLP, LabelNetwork
from likeness.networks.point_networks import EncoderMLP, ScoreMLP
from likeness.networks.score_unet import PyramidScoreUNet, ScoreUNet
from likeness.networks.softmax_network import SoftmaxNetwork, build_networks
from likeness.networks.text_transformer import PretrainedTransformer, SmallTransformer

__all__ = [
    "CNN",
    "MLP",
    "EncoderMLP",
    "EncoderOutput",
    "EncoderUNet",
    "LabelNetwork",
    "LabelTable",
    "LinearHead",
    "PretrainedTransformer",
    "PyramidScoreUNet",
    "ResNet18",
    "ScoreMLP",
    "ScoreUNet",
    "SmallTransformer",
    "SoftmaxNetwork",
    "build_networks",
]
