"""Backbones of other libraries as f: without their heads, frozen or trained, in classifiers and their checkpoints."""

import functools
from pathlib import Path

import pytest
import torch

from lightning_modules.checkpoints import load_softmax_models
from lightning_modules.softmax_classifier import SoftmaxClassifier
from likeness.networks import Backbone, LinearHead
from tests.callbacks.toy_siblings import save_checkpoint

models = pytest.importorskip("torchvision.models")


def test_features_are_those_before_the_head() -> None:
    torch.manual_seed(0)
    backbone = Backbone((3, 32, 32), 512, "torchvision:resnet18", size=32).eval()
    torch.manual_seed(0)
    network = models.resnet18().eval()
    network.fc = torch.nn.Identity()
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    torch.testing.assert_close(backbone(x), network(((x + 1) / 2 - mean) / std))
    assert isinstance(backbone.project, torch.nn.Identity)


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:test_resnet", "torchvision:squeezenet1_0"])
def test_any_architecture_has_features(name: str) -> None:
    pytest.importorskip("timm")
    backbone = Backbone((1, 28, 28), 3, name)
    answer = backbone(torch.zeros(2, 1, 28, 28))
    assert answer.shape == (2, 3)
    answer.sum().backward()
    assert any(parameter.grad is not None for parameter in backbone.body.parameters())


def test_a_frozen_body_stays_as_it_is() -> None:
    backbone = Backbone((3, 32, 32), 4, "torchvision:resnet18", frozen=True, size=32).train()
    assert not any(layer.training for layer in backbone.body.modules())
    before = {name: value.clone() for name, value in backbone.body.state_dict().items()}
    backbone(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(torch.equal(before[name], value) for name, value in backbone.body.state_dict().items())
    assert backbone.project.weight.grad is not None
    assert all(parameter.grad is None for parameter in backbone.body.parameters())


def test_a_checkpoint_needs_no_file_of_weights(tmp_path: Path) -> None:
    torch.manual_seed(3)
    weights = tmp_path / "weights.pth"
    torch.save(models.resnet18(num_classes=6).state_dict(), weights)
    body = functools.partial(Backbone, name="torchvision:resnet18", weights=str(weights), size=32)
    model = SoftmaxClassifier((3, 32, 32), 4, dim=5, embedding=body, unembedding=LinearHead).eval()
    trained = torch.load(weights, weights_only=True)["conv1.weight"]
    assert torch.equal(model.network.embedding.body.conv1.weight, trained)
    save_checkpoint(model, tmp_path / "a.ckpt")
    weights.unlink()
    (_, loaded), *_ = load_softmax_models(tmp_path / "a.ckpt")
    x = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(loaded.embed(x), model.embed(x))


def test_a_name_needs_its_library() -> None:
    with pytest.raises(ValueError, match="name must be LIBRARY:MODEL, such as timm:resnet18, got 'resnet18'"):
        Backbone((3, 8, 8), 2, "resnet18")
