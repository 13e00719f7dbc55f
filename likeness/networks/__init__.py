"""Networks: f maps inputs to R^M, g maps labels to R^M; score networks and inner encoders of diffusion models."""

from likeness.networks.classifier_networks import CNN, MLP, LabelNetwork, LabelTable, LinearHead, ResNet18
from likeness.networks.encoder_networks import EncoderMLP, EncoderOutput, EncoderUNet
from likeness.networks.score_networks import PyramidScoreUNet, ScoreMLP, ScoreUNet
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
