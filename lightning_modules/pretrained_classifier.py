"""A classifier of another library, validated and tested as it is."""

from lightning_modules.softmax_classifier import EvaluatedClassifier
from likeness.adapters.libraries import LibraryClassifier, ModelName
from likeness.adapters.modules import ModelError
from likeness.batch import Batch


class PretrainedClassifier(EvaluatedClassifier):
    """A model of torchvision, timm, transformers or a function of one's own, with its weights, for evaluation alone.

    Inputs are images as datamodules store them and go through the model's own preprocessing. To train such a model,
    take it as the network f of a classifier: ``likeness.networks.Backbone``.

    Args:
        num_classes: K of the data.
        name: ``torchvision:resnet18?weights=FILE``, ``timm:resnet18?weights=pretrained``, ``hf:FOLDER``,
            ``package.module:factory``.

    Raises ModelError for a name that is none, a model without weights of its own, and one of other labels.
    """

    is_pretrained = True

    def __init__(self, num_classes: int, name: str) -> None:
        super().__init__()
        parts = ModelName.of(name)
        if parts is None:
            raise ModelError(f"name must be LIBRARY:MODEL, such as timm:resnet18?weights=FILE, got {name!r}")
        if parts.library in ("torchvision", "timm") and not parts.options.get("weights"):
            raise ModelError(f"{name} has random weights: name its own, as in {name.partition('?')[0]}?weights=FILE")
        if parts.options.get("weights") == "pretrained" and "num_classes" in parts.options:
            raise ModelError(f"{name} would have a random head: num_classes is of weights in a file")
        self.name = name
        self.network = LibraryClassifier(parts)
        if (labels := len(self.network.unembeddings())) != num_classes:
            raise ModelError(f"{name} has {labels} labels, but the data have {num_classes}")
        self.set_labels(num_classes)

    def setup(self, stage: str) -> None:
        if stage == "fit":
            raise ModelError(f"{self.name} is evaluated and not trained: as a Backbone, a classifier's f, it can be")

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """None, and no optimiser: Lightning looks for both before ``setup`` can say that there is no training."""

    def configure_optimizers(self) -> None:
        return None
