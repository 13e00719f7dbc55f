"""Networks: f maps inputs to R^M, g maps labels to R^M."""

from likeness.networks.convolutional import CNN, ResNet18
from likeness.networks.heads import LabelTable, LinearHead
from likeness.networks.mlp import MLP, LabelNetwork
from likeness.networks.softmax_network import SoftmaxNetwork, build_networks

__all__ = ["CNN", "MLP", "LabelNetwork", "LabelTable", "LinearHead", "ResNet18", "SoftmaxNetwork", "build_networks"]
