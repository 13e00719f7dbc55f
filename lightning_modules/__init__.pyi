from .diffusion import DiffEnc as DiffEnc
from .diffusion import VariationalDiffusion as VariationalDiffusion
from .language_model import LanguageModel as LanguageModel
from .sentence_encoder import SentenceEncoder as SentenceEncoder
from .sharding import ShardedDataParallel as ShardedDataParallel
from .sibling_classifiers import SiblingClassifiers as SiblingClassifiers
from .sibling_language_models import SiblingLanguageModels as SiblingLanguageModels
from .softmax_classifier import SoftmaxClassifier as SoftmaxClassifier
