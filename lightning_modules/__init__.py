"""What is trained. Configurations and checkpoints name classes as they are exported here."""

from lightning_modules.sibling_classifiers import SiblingClassifiers
from lightning_modules.softmax_classifier import SoftmaxClassifier

__all__ = ["SiblingClassifiers", "SoftmaxClassifier"]
