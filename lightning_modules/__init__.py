"""What is trained. Configurations and checkpoints name classes as they are exported here."""

from lightning_modules.diffusion import DiffEnc, VariationalDiffusion
from lightning_modules.sentence_encoder import SentenceEncoder, ShardedDataParallel
from lightning_modules.sibling_classifiers import SiblingClassifiers
from lightning_modules.softmax_classifier import SoftmaxClassifier

__all__ = [
    "DiffEnc",
    "SentenceEncoder",
    "ShardedDataParallel",
    "SiblingClassifiers",
    "SoftmaxClassifier",
    "VariationalDiffusion",
]
