"""Models of other libraries by name: their own weights, preprocessing and errors."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from likeness.adapters.hub_models import _without_code, hub_architecture, hub_model
from likeness.adapters.libraries import ModelName, library_model
from likeness.adapters.modules import ModelError
from likeness.adapters.preprocessing import IMAGENET, Preprocessing
from likeness.comparisons.compare import compare

IMAGES = torch.randint(0, 256, (2, 3, 40, 48), dtype=torch.uint8, generator=torch.manual_seed(0))


def factory() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4))


def named(text: str) -> Any:
    name = ModelName.of(text)
    assert name is not None
    return library_model(name)


@pytest.mark.parametrize("text", ["runs/demo", "resnet18", "timm:", "C:/x:y"[2:]])
def test_other_texts_name_no_model(text: str) -> None:
    assert ModelName.of(text) is None


def test_weights_come_from_a_file_and_decide_the_number_of_classes(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    network = models.resnet18(num_classes=7).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    module, transform = named(f"torchvision:resnet18?weights={tmp_path / 'weights.pth'}")
    assert (transform.resize, transform.crop, transform.mean) == (256, 224, IMAGENET[0])
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(module.eval()(x), network(x))


def test_timm_says_how_its_models_see_images(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    save_file = pytest.importorskip("safetensors.torch").save_file
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=5)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    module, transform = named(f"timm:test_vit?weights={tmp_path / 'w.safetensors'}")
    config = timm.data.resolve_model_data_config(network)
    assert transform.crop == config["input_size"][-1]
    assert transform.mean == config["mean"]
    x = torch.randn(2, 3, transform.crop, transform.crop)
    assert torch.equal(module.eval()(x), network.eval()(x))


def test_preprocessing_is_torchvisions_own() -> None:
    models = pytest.importorskip("torchvision.models")
    pil = pytest.importorskip("PIL.Image")
    own = Preprocessing(32, 28)
    preset = models.get_model_weights("resnet18").DEFAULT.transforms(crop_size=28, resize_size=32)
    torch.testing.assert_close(own(IMAGES), preset(IMAGES))
    pictures = [pil.fromarray(image.permute(1, 2, 0).numpy()) for image in IMAGES]
    torch.testing.assert_close(own(pictures), own(IMAGES))
    grey = IMAGES[:, :1]
    torch.testing.assert_close(own(grey), own(grey.expand(-1, 3, -1, -1)))
    floats = torch.randn(2, 3, 5, 5)
    assert own(floats) is floats


def test_models_of_hugging_face_are_read_from_their_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(image_size=16, patch_size=8, num_labels=4, **sizes)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    module, transform = named(f"hf:{tmp_path / 'vit'}")
    assert type(module).__name__ == "ViTForImageClassification"
    assert transform(IMAGES).shape == (2, 3, 16, 16)
    found = compare(f"hf:{tmp_path / 'vit'}", f"hf:{tmp_path / 'vit'}", IMAGES, measures=["kl"])
    assert found.kl == 0


def test_a_factory_is_called() -> None:
    module, transform = named("tests.likeness.adapters.test_libraries:factory")
    assert transform is None
    assert isinstance(module, nn.Sequential)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("torchvision:resnet19", "there is no model torchvision:resnet19 that can be loaded"),
        ("torchvision:resnet18?weights=/no/file.pth", "torchvision:resnet18: there is no file of weights /no/file.pth"),
        ("timm:resnet19x", "there is no model timm:resnet19x that can be loaded"),
        ("timm:resnet18?weights=mine", "weights are a file or 'pretrained', got 'mine'"),
        ("timm:resnet18?weight=x", "there is no option 'weight', only weights, num_classes, size"),
        ("no_such_package:resnet18", "No module named 'no_such_package'; the libraries are torchvision, timm, hf"),
        ("tests.likeness.adapters.test_libraries:IMAGES", "gives a Tensor, not a torch module"),
    ],
)
def test_what_is_not_there_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        named(text)
    assert "\n" not in str(error.value)


def test_preprocessing_outlives_the_weights(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models")
    gone = ModelName("torchvision", "resnet18", {"weights": str(tmp_path / "gone.pth")})
    assert library_model(gone, trained=False).module.fc.out_features == 1000
    preset = models.ResNet50_Weights.DEFAULT.transforms()
    _, transform = library_model(ModelName("torchvision", "resnet50", {"weights": "DEFAULT"}), trained=False)
    assert transform.resize == preset.resize_size[0] != models.ResNet50_Weights.IMAGENET1K_V1.transforms().resize_size
    with pytest.raises(ModelError, match=r"a file or one of IMAGENET1K_V1, DEFAULT, got 'none'"):
        named("torchvision:resnet18?weights=none")


def test_a_model_of_transformers_is_built_again_from_its_configuration(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    network = transformers.ViTForImageClassification(transformers.ViTConfig(image_size=16, patch_size=8, **sizes))
    network.half().save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.5] * 3).save_pretrained(tmp_path)
    module, transform = hub_model(str(tmp_path))
    kept = json.loads(json.dumps(hub_architecture(module, transform)))
    again, seen = hub_model("gone", architecture=kept)
    again.load_state_dict(module.state_dict())
    assert seen.images == transform.images
    assert seen.images.mean == (0.5,) * 3
    assert again.dtype == module.dtype
    x = torch.randn(2, 3, 16, 16, dtype=module.dtype)
    assert torch.equal(again.eval()(x).logits, module.eval()(x).logits)
    with pytest.raises(ValueError, match="transformers has no model 'Trainer'"):
        hub_model("gone", architecture=kept | {"class": "Trainer"})


def test_a_configuration_cannot_ask_for_code() -> None:
    """Attention kernels are fetched from a hub: a checkpoint's configuration that names one is built without."""
    config = {
        "model_type": "vit",
        "_attn_implementation": "some/kernel",
        "backbone_config": {"attn_implementation": "x"},
    }
    assert _without_code(config) == {"model_type": "vit", "backbone_config": {}}
    assert _without_code([{"auto_map": {"AutoModel": "file.Class"}, "hidden_size": 8}]) == [{"hidden_size": 8}]


def test_googlenet_is_built_again_as_its_weights_would_have_it() -> None:
    """torchvision turns its inputs round and drops its other heads where weights are named: so does a checkpoint's."""
    body = library_model(ModelName.of("torchvision:googlenet?weights=IMAGENET1K_V1"), trained=False).module
    assert body.transform_input
    assert body.aux1 is None
