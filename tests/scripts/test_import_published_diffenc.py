"""The command that imports published diffusion models."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_modules.checkpoints import load_module
from scripts import import_published
from scripts.cli.entry_point import run_command
from scripts.import_published import read_parameters
from tests import mulan_reference
from tests.mulan_reference import EPSILON, needs_mulan

CONFIG: dict[str, Any] = {
    "ddpm_type": "VDM2_V",
    "vocab_size": 17,
    "gamma_type": "train_scalar",
    "gamma_min": -7.9,
    "gamma_max": 5.0,
    "score_model_config": {
        "m_type": "unet",
        "with_fourier_features": False,
        "with_attention": False,
        "n_embd": 32,
        "n_layer": 1,
        "num_groups_groupnorm": 16,
        "p_dropout": 0.1,
    },
}


def norm(path: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{path}/scale": (width,), f"{path}/bias": (width,)}


def layer(path: str, *kernel: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    return {f"{path}/kernel": kernel} | ({f"{path}/bias": kernel[-1:]} if bias else {})


def block(path: str, inputs: int) -> dict[str, tuple[int, ...]]:
    shapes = norm(f"{path}/GroupNorm_0", inputs) | norm(f"{path}/GroupNorm_1", 32)
    shapes |= layer(f"{path}/conv1", 3, 3, inputs, 32) | layer(f"{path}/conv2", 3, 3, 32, 32)
    shapes |= layer(f"{path}/cond_proj", 128, 32, bias=False)
    return shapes | (layer(f"{path}/nin_shortcut", inputs, 32) if inputs != 32 else {})


def parameters() -> dict[str, np.ndarray]:
    """Random ones of the smallest model, by the authors' paths."""
    net = "score_model/VDMUNet_0"
    shapes = layer("score_model/TimeEmbedding_0/dense0", 33, 128) | layer(
        "score_model/TimeEmbedding_0/dense1", 128, 128
    )
    shapes |= layer("score_model/conv_in", 3, 3, 1, 32) | layer("score_model/conv_out", 3, 3, 32, 1)
    shapes |= norm("score_model/GroupNorm_0", 32) | norm(f"{net}/mid.attn_1/GroupNorm_0", 32)
    for name in ("q", "k", "v", "proj_out"):
        shapes |= layer(f"{net}/mid.attn_1/{name}", 32, 32)
    for name, inputs in {
        "down.block_0": 32,
        "mid.block_1": 32,
        "mid.block_2": 32,
        "up.block_0": 64,
        "up.block_1": 64,
    }.items():
        shapes |= block(f"{net}/{name}", inputs)
    shapes |= {"gamma/w": (1,), "gamma/b": (1,)}
    random = np.random.default_rng(0)
    return {path: random.normal(0, 0.1, shape).astype(np.float32) for path, shape in shapes.items()}


@pytest.fixture(autouse=True)
def _files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("params.npz", **parameters())
    Path("model.json").write_text(json.dumps(CONFIG))


def run(kind: str = "diffenc", **options: str) -> int:
    given = {"params": "params.npz", "model-config": "model.json", "out": "model.ckpt"} | options
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    with pytest.raises(SystemExit) as end:
        run_command(import_published.main, [kind, *words])
    return int(end.value.code or 0)


def test_an_archive_becomes_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(input_shape="[1, 8, 8]") == 0
    assert "wrote model.ckpt: VDM2_V" in capsys.readouterr().out
    model = load_module("model.ckpt")
    own = parameters()
    assert model.diffusion.input_shape == (1, 8, 8)
    assert torch.equal(model.diffusion.network.conv_out.bias, torch.from_numpy(own["score_model/conv_out/bias"]))
    gamma = model.diffusion.schedule(torch.tensor([0.0, 1.0]))
    w, b = (torch.from_numpy(own[f"gamma/{name}"]) for name in "wb")
    torch.testing.assert_close(gamma, torch.cat([b, b + w.abs()]))


@needs_mulan
def test_a_mulan_becomes_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("params.npz", **{f"param:{path}": value for path, value in mulan_reference.parameters(EPSILON).items()})
    Path("model.json").write_text(json.dumps(mulan_reference.configuration(EPSILON)))
    assert run("mulan") == 2
    assert "prediction" in capsys.readouterr().err
    assert run("mulan", prediction="eps", input_shape="[1, 8, 8]") == 0
    assert "wrote model.ckpt: MuLAN with a gaussian context, 27" in capsys.readouterr().out
    model = load_module("model.ckpt").diffusion
    assert (model.prediction, model.input_shape, model.context_size) == ("eps", (1, 8, 8), 12)
    assert run(overwrite="true") == 1
    assert "prediction must be said of a MuLAN" in capsys.readouterr().err


def test_parameters_among_other_arrays() -> None:
    np.savez("all.npz", images=np.zeros(3), **{f"param:{path}": value for path, value in parameters().items()})
    assert read_parameters(Path("all.npz")).keys() == parameters().keys()


def test_a_flax_checkpoint_gives_its_averaged_parameters() -> None:
    flax = pytest.importorskip("flax", reason="flax is an optional extra")
    tree: dict[str, Any] = {}
    for path, value in parameters().items():
        *folders, name = path.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = value
    raw = {"score_model": {"conv_out": {"bias": np.zeros(1, np.float32)}}}
    state = {"step": 3, "params": raw, "ema_params": tree, "opt_state": {"0": {"count": np.array(3)}}}
    Path("checkpoint_3").write_bytes(flax.serialization.msgpack_serialize(state))
    found = read_parameters(Path("checkpoint_3"))
    assert found.keys() == parameters().keys()
    assert all(np.array_equal(found[path], value) for path, value in parameters().items())
    assert run(params="checkpoint_3") == 0


def test_without_flax_its_checkpoints_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "flax.serialization", None)
    Path("checkpoint_3").write_bytes(b"\x80")
    assert run(params="checkpoint_3") == 1
    assert "pip install flax" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"params": "absent.npz"}, "there is no file absent.npz"),
        ({"model-config": "absent.json"}, "there is no file absent.json"),
        ({"model-config": "params.npz"}, "params.npz is no JSON"),
        ({"out": "model.pt"}, "--out model.pt must be a .ckpt file"),
    ],
)
def test_refusals(options: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(**options) == 1
    assert message in capsys.readouterr().err
    assert not Path("model.ckpt").exists()


def test_damaged_files_and_missing_keys(capsys: pytest.CaptureFixture[str]) -> None:
    Path("params.npz").write_bytes(Path("params.npz").read_bytes()[:1000])
    assert run() == 1
    assert "params.npz is no archive of arrays" in capsys.readouterr().err
    np.savez("params.npz", **parameters())
    Path("model.json").write_text(json.dumps({key: value for key, value in CONFIG.items() if key != "vocab_size"}))
    assert run() == 1
    assert "model.json lacks vocab_size" in capsys.readouterr().err


def test_a_checkpoint_that_is_there_stays(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert run() == 1
    assert "model.ckpt exists already" in capsys.readouterr().err
    assert run(overwrite="true") == 0
