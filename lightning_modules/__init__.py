"""What is trained. Configurations and checkpoints name classes as they are exported here."""

from lightning_modules.diffenc import DiffEnc
from lightning_modules.sentence_encoder import SentenceEncoder
from lightning_modules.sibling_classifiers import SiblingClassifiers
from lightning_modules.softmax_classifier import SoftmaxClassifier
from lightning_modules.variational_diffusion import VariationalDiffusion

__all__ = ["DiffEnc", "SentenceEncoder", "SiblingClassifiers", "SoftmaxClassifier", "VariationalDiffusion"]
