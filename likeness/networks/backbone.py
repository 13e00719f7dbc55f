"""Vision models of torchvision, timm and transformers as the network f of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from likeness.adapters.activations import pooled
from likeness.adapters.batches import as_inputs
from likeness.adapters.hub_models import HubTransform, hub_architecture
from likeness.adapters.libraries import ModelName, library_model
from likeness.adapters.modules import ModelError, ModuleModel
from likeness.adapters.preprocessing import Preprocessing
from likeness.adapters.unnoticed import unnoticed
from likeness.checks import require_positive, require_shape
from likeness.networks.architectures import known_architectures


class Backbone(nn.Module):
    """The body of a vision model, without its head, and a linear map to R^M where its own width is another.

    Images come in [-1, 1], as ``input_shift`` and ``input_scale`` of a datamodule bring them there, and are resized and
    normalised as the model was trained. A checkpoint holds all weights, and the configuration of a model of ``hf``:
    files and folders are read when a training starts, and not when it goes on or a checkpoint is loaded.

    Args:
        input_shape: (C, H, W).
        dim: M.
        name: ``torchvision:resnet18``, ``timm:vit_tiny_patch16_224``, ``hf:FOLDER_OR_NAME``.
        weights: a file, or the library's name for its own (``DEFAULT`` of torchvision, ``pretrained`` of timm); none is
            random. Models of ``hf`` come with theirs.
        frozen: keep the body as it is, in evaluation mode; the linear map is trained.
        size: of the images that the body sees, in place of the model's own.

    Raises ModelError for a model that is not there, and ValueError for sizes that are not positive.

    Example:
        >>> body = Backbone((3, 32, 32), 4, "torchvision:resnet18", size=32)
        >>> body(torch.zeros(2, 3, 32, 32)).shape, type(body.project).__name__
        (torch.Size([2, 4]), 'Linear')
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        dim: int,
        name: str,
        weights: str | None = None,
        frozen: bool = False,
        size: int | None = None,
    ) -> None:
        super().__init__()
        require_shape("input_shape", input_shape, length=3)
        require_positive(dim=dim, size=size)
        parts = ModelName.of(name)
        if parts is None:
            raise ModelError(f"name must be LIBRARY:MODEL, such as timm:resnet18, got {name!r}")
        options = {"weights": weights, "size": size}
        wanted = {key: str(value) for key, value in options.items() if value is not None}
        model = parts._replace(options={**parts.options, **wanted})
        known = known_architectures()
        module, transform = library_model(model, known is None, (known or {}).get(str(model)))
        images = transform.images if isinstance(transform, HubTransform) else transform
        self.preprocessing = images if isinstance(images, Preprocessing) else Preprocessing(size, size)
        self.kept_architecture = {str(model): hub_architecture(module, transform)} if parts.library == "hf" else {}
        self.frozen = frozen
        self.body = _without_head(module, self._seen(torch.zeros(1, *input_shape)), name)
        width = self._features(torch.zeros(1, *input_shape)).shape[1]
        self.project = nn.Identity() if width == dim else nn.Linear(width, dim)
        self.body.train(not frozen)  # in whatever mode its library gives it
        if frozen:
            self.body.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] in [-1, 1] to [B, M]."""
        body = self.body(self._seen(x)) if not self.frozen else self._frozen(x)
        return self.project(_vectors(body))  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> Self:
        """As for any module, but a frozen body stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.body.eval()
        return self

    def _seen(self, x: Tensor) -> Tensor:
        return self.preprocessing.normalised(self.preprocessing.sized((x + 1) / 2))

    @torch.no_grad()
    def _frozen(self, x: Tensor) -> Any:
        return self.body(self._seen(x))

    @torch.no_grad()
    def _features(self, x: Tensor) -> Tensor:
        with unnoticed([self.body]):
            return _vectors(self.body(self._seen(x)))


def _without_head(module: nn.Module, example: Tensor, name: str) -> nn.Module:
    """The module with the last linear layer, from which its output comes, made the identity."""
    model = ModuleModel(module, name)
    with unnoticed([module]):
        model.prepare(as_inputs(example))
    if model.head is not None:
        module.set_submodule(model.head.name, nn.Identity())
    return module


def _vectors(output: Any) -> Tensor:
    """[B, d] with its gradient: pooled as its library does, else the mean over positions."""
    if isinstance(output, Tensor) and output.ndim == 2:
        return output
    for field in ("pooler_output", "logits", "last_hidden_state"):
        value = getattr(output, field, None)
        if isinstance(value, Tensor):
            return value if value.ndim == 2 else value.flatten(2).mean(2) if value.ndim == 4 else value.mean(1)
    if isinstance(output, Tensor):
        return output.flatten(2).mean(2) if output.ndim == 4 else output.mean(1)
    return pooled(output, "mean", "output")
