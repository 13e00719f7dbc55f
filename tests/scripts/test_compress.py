"""Images to a file and back by the commands, and what they refuse."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import Digits
from likeness.diffusion import MultivariatePolynomial
from likeness.diffusion.volatility import LearnedVolatility
from scripts import compress, decompress
from scripts.cli.entry_point import run_command
from tests.lightning_modules.points import save
from tests.lightning_modules.tiny_diffusion import vdm
from tests.scripts.tiny_diffusion import DIGITS, tiny, tiny_diffenc

pytest.importorskip("constriction")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that are not trained, and the first test digits."""
    folder = tmp_path_factory.mktemp("streams")
    torch.manual_seed(0)
    save(tiny(), folder / "vdm.ckpt")
    save(tiny(seed=1), folder / "other.ckpt")
    save(tiny_diffenc(num_steps=5, volatility=LearnedVolatility), folder / "diffenc.ckpt")
    save(vdm(schedule=partial(MultivariatePolynomial, gamma_min=-7.9)), folder / "path.ckpt")
    save(tiny(class_conditional=True, num_classes=10), folder / "ten.ckpt")
    (folder / "digits.yaml").write_text(DIGITS)
    data = Digits()
    data.setup("test")
    images = data.test_dataloader().dataset[torch.arange(40)].x.numpy()
    np.save(folder / "images.npy", images)
    np.savez(folder / "two.npz", one=images, other=images.astype(np.float32))
    np.save(folder / "wide.npy", images[:, :, :4])
    np.save(folder / "none.npy", images[:0])
    np.save(folder / "bright.npy", images + np.uint8(200))
    return folder


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def run(command: object, *arguments: object) -> int:
    with pytest.raises(SystemExit) as ending:
        run_command(command.main, [str(argument) for argument in arguments])  # type: ignore[attr-defined]
    return int(ending.value.code or 0)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("vdm.ckpt", ("--data", "digits.yaml", "--steps", 4, "--fit_samples", 60)),
        ("diffenc.ckpt", ("--data", "digits.yaml", "--volatility", "fitted", "--fit_samples", 60)),
        ("diffenc.ckpt", ("--ratio", "one", "--batch_size", 16)),
        ("path.ckpt", ("--data", "digits.yaml", "--steps", 3, "--volatility", "fitted", "--fit_samples", 60)),
    ],
)
def test_images_come_back(
    model: str, options: tuple[object, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a fitted ratio, with a fitted volatility, a learned one, one of each dimension; the size is the file's."""
    stream, back = tmp_path / "stream", tmp_path / "back.npy"
    assert run(compress, model, "images.npy", stream, *options) == 0
    shown = capsys.readouterr().out
    assert "bpd_net" in shown
    assert str(stream.stat().st_size) in shown.replace(",", "")
    assert run(decompress, model, stream, back) == 0
    assert np.array_equal(np.load(back), np.load("images.npy"))
    assert np.load(back).dtype == np.uint8


def test_what_is_wrong_with_a_stream_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other weights, a stream cut short, one altered behind the digest's back, and a file that is none."""
    stream, back = tmp_path / "stream", tmp_path / "back.npy"
    assert run(compress, "vdm.ckpt", "images.npy", stream, "--steps", 3, "--ratio", "one", "--limit", 9) == 0
    assert run(decompress, "other.ckpt", stream, back) == 1
    assert "was written with weights" in capsys.readouterr().err
    content = stream.read_bytes()
    (tmp_path / "short").write_bytes(content[:-5])
    assert run(decompress, "vdm.ckpt", tmp_path / "short", back) == 1
    assert "short is cut short or altered" in capsys.readouterr().err
    header, _, words = content.partition(b"\n")
    altered = json.loads(header) | {"seed": 7}
    (tmp_path / "altered").write_bytes(json.dumps(altered).encode() + b"\n" + words)
    assert run(decompress, "vdm.ckpt", tmp_path / "altered", back) == 1
    message = capsys.readouterr().err
    assert "does not end in the words that it began with" in message
    assert "written by {'torch'" in message
    assert run(decompress, "vdm.ckpt", "images.npy", back) == 1
    assert "images.npy is no stream of images" in capsys.readouterr().err
    assert not back.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vdm.ckpt", "missing.npy", "out"), "missing.npy is missing"),
        (("vdm.ckpt", "none.npy", "out", "--data", "digits.yaml"), "none.npy holds no images"),
        (("vdm.ckpt", "two.npz", "out"), "two.npz holds the arrays one [40, 1, 8, 8], other [40, 1, 8, 8]: name one"),
        (
            ("vdm.ckpt", "two.npz", "out", "--key", "other"),
            "codes whole numbers [N, 1, 8, 8], got float32 [40",
        ),
        (("vdm.ckpt", "wide.npy", "out"), "the model codes whole numbers [N, 1, 8, 8], got uint8 [40, 1, 4, 8]"),
        (("vdm.ckpt", "bright.npy", "out"), "lies outside 0..16"),
        (("vdm.ckpt", "images.npy", "out", "--ratio", "learned"), "the model has no ratio"),
        (("vdm.ckpt", "images.npy", "out"), "name the data with --data"),
        (("vdm.ckpt", "images.npy", "out", "--steps", "0"), "--steps must be at least 1, got 0"),
        (("ten.ckpt", "images.npy", "out"), "ten.ckpt is class-conditional"),
    ],
)
def test_refusals_are_one_line(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(compress, *arguments) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("out").exists()
