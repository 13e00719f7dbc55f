"""The trained classifier that a student learns from."""

from collections.abc import Sequence

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from lightning_modules.checkpoints import load_softmax_models
from likeness.protocols import SoftmaxModel


class Teacher:
    """Logits of a classifier that is read from its checkpoint when they are first needed.

    It is no ``nn.Module``, so that it belongs to no student: not to its weights, their optimiser, their averages or
    their checkpoints. A distilled checkpoint therefore is complete without its teacher, and only training on, after
    ``--ckpt_path`` too, reads the teacher again, from where it was read at first. It stays in evaluation mode, scales
    inputs by itself and follows the device of its inputs; its weights are frozen.

    Args:
        path: a run directory or checkpoint, ``PATH#3`` for a sibling.
        input_shape: that of the student, without the batch dimension.
        num_classes: K of the student.
    """

    def __init__(self, path: str, input_shape: Sequence[int], num_classes: int) -> None:
        self.path = path
        self._input_shape = tuple(input_shape)
        self._num_classes = num_classes
        self._model: SoftmaxModel | None = None

    def read(self) -> SoftmaxModel:
        """The model, on the CPU at first; random numbers are left as they are.

        Raises what ``lightning_modules.checkpoints.load_softmax_models`` does, and ValueError for siblings of which
        none is named, and for a model of other inputs or labels than the student's.
        """
        if self._model is None:
            with isolate_rng():
                model = _load(self.path)
            self._require_fit(model)
            self._model = model
        return self._model

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """f(x) . g(y), [N, K], of inputs as the datamodule stores them."""
        model = self.read()
        if isinstance(model, nn.Module):
            model.to(x.device)
        return model.embed(x) @ model.unembeddings().mT

    @torch.no_grad()
    def _require_fit(self, model: SoftmaxModel) -> None:
        labels = len(model.unembeddings())
        if labels != self._num_classes:
            raise ValueError(
                f"teacher {self.path} has {labels} labels, the student has num_classes={self._num_classes}"
            )
        try:
            model.embed(torch.zeros(1, *self._input_shape))
        except ValueError as error:
            shape = list(self._input_shape)
            raise ValueError(f"teacher {self.path} does not take the student's inputs {shape}: {error}") from error


def _load(path: str) -> SoftmaxModel:
    models = load_softmax_models(path)
    if len(models) > 1:
        raise ValueError(f"teacher {path} holds {len(models)} siblings: name one, {models[0][0]} to {models[-1][0]}")
    return models[0][1]
