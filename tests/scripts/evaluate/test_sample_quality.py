"""FID and KID of a file of samples, against their closed forms, in any features."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torch import Tensor, nn

from datamodules import Digits
from likeness.diffusion.process import scaled
from scripts import evaluate
from scripts.cli.entry_point import run_command
from scripts.evaluate.samples import KID_SUBSETS, frechet_distance
from tests.lightning_modules.points import save
from tests.scripts.evaluate.test_evaluate import siblings
from tests.scripts.tiny_diffusion import DIGITS, tiny


class Quadrants(nn.Module):
    """The mean grey level of each quadrant of an image."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.double(), 2).flatten(1)


class Flat(nn.Module):
    """Features that are no matrix."""

    def forward(self, images: Tensor) -> Tensor:
        return images.double().mean((1, 2, 3))


QUADRANTS, FLAT = f"{__name__}.Quadrants", f"{__name__}.Flat"


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits.yaml").write_text(DIGITS)
    np.savez("samples.npz", samples=generated(), levels=17)
    np.savez("coarse.npz", samples=generated() // 8, levels=3)
    np.savez("points.npz", samples=generated()[:, 0, 0, :2], levels=17)
    np.savez("other.npz", images=generated())
    np.savez("real.npz", samples=generated() / 2, levels=17)
    Path("text.npz").write_text("no archive")


def generated() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 17, (150, 1, 8, 8)).astype(np.uint8)


def real(split: str = "test") -> Tensor:
    data = Digits()
    data.setup()
    return data.splits[split][torch.arange(len(data.splits[split]))].x


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        run_command(evaluate.main, [*map(str, arguments), "--data", "digits.yaml", "--out", "out"])
    return int(end.value.code or 0)


def quality(*arguments: object) -> dict[str, str]:
    assert run(*arguments) == 0
    with Path("out", "evaluation.csv").open() as file:
        (row,) = csv.DictReader(file)
    return row


def frechet(f: np.ndarray, g: np.ndarray) -> float:
    """Between Gaussians fitted to the rows of f and of g: Dowson and Landau 1982."""
    a, b = np.cov(f.T), np.cov(g.T)
    return float(((f.mean(0) - g.mean(0)) ** 2).sum() + np.trace(a + b) - 2 * np.trace(sqrtm(a @ b).real))


def squared_mmd(f: np.ndarray, g: np.ndarray) -> float:
    """Unbiased, with the kernel (x . y / M + 1)^3; Binkowski et al. 2018."""
    (n, dim), m = f.shape, len(g)
    kernel = lambda x, y: (x @ y.T / dim + 1) ** 3  # noqa: E731
    within = [(kernel(x, x).sum() - np.trace(kernel(x, x))) / (k * (k - 1)) for x, k in ((f, n), (g, m))]
    return float(sum(within) - 2 * kernel(f, g).mean())


@pytest.mark.parametrize("split", ["test", "train"])
def test_fid_is_the_frechet_distance(split: str) -> None:
    row = quality("samples.npz", "--features", QUADRANTS, "--split", split, "--batch_size", 64)
    f, g = (Quadrants()(images).numpy() for images in (real(split), torch.from_numpy(generated())))
    assert float(row["fid_150"]) == pytest.approx(frechet(f, g), rel=1e-6)
    assert (row["split"], row["samples"]) == (split, str(len(f)))
    assert row["features"] == QUADRANTS


def test_kid_is_the_squared_maximum_mean_discrepancy() -> None:
    row = quality("samples.npz", "--features", QUADRANTS, "--limit", 150)
    f, g = (Quadrants()(images).numpy() for images in (real()[:150], torch.from_numpy(generated())))
    assert float(row["kid_150"]) == pytest.approx(squared_mmd(f, g), rel=1e-6)  # every subset is the whole
    assert "kid_150_std" not in row
    assert row["kid_subset"] == "150"


@pytest.mark.parametrize("features", ["pixels", QUADRANTS])
def test_a_set_is_at_no_distance_from_itself(features: str) -> None:
    np.savez("real.npz", samples=real().numpy(), levels=17)
    distance = float(quality("real.npz", "--features", features)["fid_360"])
    assert 0 <= distance < 1e-20


@given(st.integers(2, 40), st.integers(2, 40), st.integers(1, 12), st.floats(1e-9, 1.0), st.integers(0, 99))
def test_near_sets_keep_their_distance(n: int, m: int, dim: int, step: float, seed: int) -> None:
    """Moved by a step in one direction, a set is that far away, however small the step."""
    source = torch.Generator().manual_seed(seed)
    f = torch.randn(n, dim, generator=source, dtype=torch.float64)
    other = torch.randn(m, dim, generator=source, dtype=torch.float64)
    moved = f.clone()
    moved[:, 0] += step
    assert frechet_distance(f, moved) == pytest.approx(step**2, rel=1e-5, abs=1e-24)
    found = frechet_distance(f, other)
    assert found >= 0
    assert found == pytest.approx(frechet_distance(other, f), rel=1e-9)
    a, b = (np.cov(x.numpy().T).reshape(dim, dim) for x in (f, other))
    between = np.linalg.eigvals(a @ b).real.clip(0) ** 0.5
    means = float((f.mean(0) - other.mean(0)).square().sum())
    assert found == pytest.approx(means + np.trace(a + b) - 2 * between.sum(), abs=1e-6 * np.trace(a + b))


def test_fewer_samples_than_a_subset() -> None:
    """Subsets of the larger side have as many as the smaller one, whose estimate they leave without bias."""
    row = quality("samples.npz", "--features", QUADRANTS, "--split", "train")
    f, g = (Quadrants()(images).numpy() for images in (real("train"), torch.from_numpy(generated())))
    assert row["kid_subset"] == "150"
    error = float(row["kid_150_std"]) / KID_SUBSETS**0.5
    assert abs(float(row["kid_150"]) - squared_mmd(f, g)) < 4 * error


def test_subsets_are_a_function_of_the_seed() -> None:
    first, again, other = (quality("samples.npz", "--features", QUADRANTS, "--seed", seed) for seed in (1, 1, 2))
    assert first == again
    assert first["kid_150"] != other["kid_150"]
    assert first["fid_150"] == other["fid_150"]


def test_pixels_are_features() -> None:
    """Some pixels are always black, so their covariance is singular, and its square root is taken in its span."""
    f, g = (scaled(images.flatten(1), 17).double().numpy() for images in (real(), torch.from_numpy(generated())))
    values, vectors = np.linalg.eigh(np.cov(f.T))
    root = (vectors * values.clip(0) ** 0.5) @ vectors.T
    shared = np.linalg.eigvalsh(root @ np.cov(g.T) @ root).clip(0) ** 0.5
    expected = ((f.mean(0) - g.mean(0)) ** 2).sum() + np.trace(np.cov(f.T) + np.cov(g.T)) - 2 * shared.sum()
    assert float(quality("samples.npz", "--features", "pixels")["fid_150"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["vdm.ckpt", "siblings.ckpt#1"])
def test_models_of_this_project_have_features(name: str) -> None:
    save(tiny(), Path("vdm.ckpt"))
    save(siblings(), Path("siblings.ckpt"))
    model = tiny() if name == "vdm.ckpt" else siblings().member(1)
    with torch.no_grad():
        f, g = (model.eval().embed(images).double().numpy() for images in (real(), torch.from_numpy(generated())))
    assert float(quality("samples.npz", "--features", name)["fid_150"]) == pytest.approx(frechet(f, g), rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.npz",), "there is no file of samples missing.npz"),
        (("text.npz",), "text.npz is no file of samples"),
        (("other.npz",), "other.npz is no file of samples"),
        (("real.npz",), "real.npz: samples must be two or more of integers"),
        (("coarse.npz",), "coarse.npz holds 3 grey levels of shape [1, 8, 8], but digits has 17 grey levels"),
        (("points.npz",), "points.npz holds 17 grey levels of shape [2], but digits has 17 grey levels of shape [1, 8"),
        (("samples.npz", "--features", "nothing"), "--features must be inception, pixels, a run or checkpoint, or"),
        (("samples.npz", "--features", "gone.ckpt"), "there is no checkpoint gone.ckpt"),
        (("samples.npz", "--features", "likeness.seeding.mix"), "likeness.seeding.mix is no nn.Module"),
        (("samples.npz", "--features", FLAT), "but features are [B, M]"),
        (("samples.npz", "--steps", "10"), "--steps says nothing about files of samples"),
    ],
)
def test_refusals_are_one_line(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("likeness: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not Path("out").exists()


def test_inception_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torchmetrics.image.fid._TORCH_FIDELITY_AVAILABLE", False)
    assert run("samples.npz") == 1
    assert "torch-fidelity" in capsys.readouterr().err
