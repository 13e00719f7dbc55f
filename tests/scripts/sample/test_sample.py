"""The sample command: what it draws and writes, of what that is a function, and how it refuses."""

from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from likeness.diffusion import ContextPolynomial, GaussianContext
from likeness.diffusion.process import alpha
from scripts import sample
from scripts.cli.entry_point import run_command
from scripts.sample import sampling
from scripts.sample.sampling import image_grid
from tests.callbacks.toy_siblings import ToySiblings
from tests.lightning_modules.points import save
from tests.lightning_modules.tiny_diffusion import SCORE, awake, vdm
from tests.scripts.tiny_diffusion import tiny, tiny_diffenc

FEW = ("--n", 5, "--steps", 6)


@pytest.fixture(autouse=True)
def _models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(tiny(), tmp_path / "digits.ckpt")
    save(tiny(num_steps=7), tmp_path / "finite.ckpt")
    save(tiny(input_shape=(2,), levels=256), tmp_path / "points.ckpt")
    save(tiny(class_conditional=True, num_classes=3), tmp_path / "three.ckpt")
    save(tiny_diffenc(), tmp_path / "diffenc.ckpt")
    save(ToySiblings(), tmp_path / "classifier.ckpt")


def run(*arguments: object, out: str = "out") -> int:
    with pytest.raises(SystemExit) as end:
        run_command(sample.main, [*map(str, arguments), "--out", out])
    return int(end.value.code or 0)


def drawn(*arguments: object, out: str = "out") -> dict[str, np.ndarray]:
    assert run(*arguments, out=out) == 0
    with np.load(Path(out, "samples.npz")) as content:
        return dict(content)


def test_grey_levels_and_a_grid() -> None:
    found = drawn("digits.ckpt", *FEW)
    assert sorted(found) == ["levels", "samples", "seed", "steps"]
    assert found["samples"].shape == (5, 1, 8, 8)
    assert found["samples"].dtype == np.uint8
    assert found["samples"].max() <= 16
    assert found["levels"] == 17
    grid = np.asarray(Image.open("out/samples.png"))
    assert grid.shape == (2 * 65 + 1, 3 * 65 + 1, 3)  # three by two, enlarged to 64 pixels, with a border of one
    first = found["samples"][0, 0].astype(float) * 255 / 16
    assert np.abs(grid[1:65:8, 1:65:8, 0] - first).max() <= 0.5


@pytest.mark.parametrize("sampler", ["ancestral", "ode"])
@pytest.mark.parametrize("spacing", ["t", "gamma"])
def test_samples_are_a_function_of_the_seed(sampler: str, spacing: str) -> None:
    options = ("digits.ckpt", *FEW, "--sampler", sampler, "--spacing", spacing)
    first, again, other = (drawn(*options, "--seed", seed)["samples"] for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_the_path_ends_in_the_samples() -> None:
    found = drawn("digits.ckpt", *FEW, "--keep_every", 4, "--batch_size", 2)
    assert found["z"].shape == found["x_hat"].shape == (2, 5, 1, 8, 8)  # after steps 4 and 6
    assert found["gamma"][-1] == pytest.approx(-13.3)
    x = found["z"][-1] / float(alpha(torch.tensor(-13.3)))
    nearest = ((x + 1) * 17 / 2 - 0.5).round().clip(0, 16)
    assert (nearest == found["samples"]).all()


def test_a_context_gives_each_sample_its_own_gammas() -> None:
    """Those of a batch of two are there for both, and the next batch has others."""
    told = {
        "context": partial(GaussianContext, size=3),
        "schedule": partial(ContextPolynomial, gamma_min=-7.9, context_size=3, width=8),
        "network": partial(SCORE.func, **SCORE.keywords, gamma_map=True, context_size=3),
    }
    save(awake(vdm(**told)), Path("context.ckpt"))
    found = drawn("context.ckpt", *FEW, "--keep_every", 3, "--batch_size", 2)
    assert found["gamma"].shape == found["z"].shape == (2, 5, 1, 8, 8)
    middle = found["gamma"][0].reshape(5, -1)
    assert all(np.abs(one - other).max() > 1e-3 for one, other in pairwise(middle))
    np.testing.assert_allclose(found["gamma"][-1], -7.9, rtol=1e-6)
    first = drawn("context.ckpt", "--n", 2, "--steps", 6, "--keep_every", 3)
    np.testing.assert_array_equal(first["gamma"], found["gamma"][:, :2])


def test_a_threshold_bounds_what_is_predicted() -> None:
    free, held = (drawn("digits.ckpt", *FEW, "--keep_every", 1, *more) for more in ((), ("--threshold", 90)))
    assert np.abs(free["x_hat"]).max() > 1
    assert np.abs(held["x_hat"]).max() <= 1


def test_finite_depth_has_its_own_number_of_steps() -> None:
    assert drawn("finite.ckpt", "--n", 2)["steps"] == 7


def test_points_are_scattered() -> None:
    assert drawn("points.ckpt", *FEW)["samples"].shape == (5, 2)
    assert Path("out/samples.png").is_file()


def test_labels_are_repeated_and_written() -> None:
    assert drawn("three.ckpt", *FEW)["labels"].tolist() == [0, 1, 2, 0, 1]
    assert drawn("three.ckpt", *FEW, "--labels", 2, 0)["labels"].tolist() == [2, 0, 2, 0, 2]


def test_colour_images_keep_their_colours() -> None:
    images = torch.zeros(3, 3, 2, 40, dtype=torch.uint8)
    images[0, 1] = 3
    grid = image_grid(images, levels=4)
    assert grid[:, 1, 1].tolist() == [0, 255, 0]
    assert grid.shape == (3, 2 * 5 + 1, 2 * 81 + 1)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("missing.ckpt",), 1, "there is no checkpoint missing.ckpt"),
        (("digits.ckpt", "--n", "0"), 1, "--n must be at least 1, got 0"),
        (("digits.ckpt", "--steps", "0"), 1, "--steps must be at least 1, got 0"),
        (("digits.ckpt", "--keep_every", "0"), 1, "--keep_every must be at least 1, got 0"),
        (("digits.ckpt", "--batch_size", "0"), 1, "--batch_size must be at least 1, got 0"),
        (("digits.ckpt", "--threshold", "0"), 1, "--threshold is a percentile in (0, 100], got 0"),
        (("digits.ckpt", "--labels", "1"), 1, "digits.ckpt is not class-conditional"),
        (("three.ckpt", "--labels", "3"), 1, "--labels must lie in 0..2, got 3"),
        (("digits.ckpt", "--sampler", "euler"), 2, "euler"),
        (("diffenc.ckpt", "--sampler", "ode"), 1, "flow of TrainableEncoder is unknown"),
    ],
)
def test_refusals_are_one_line(
    arguments: tuple[str, ...], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == status
    error = capsys.readouterr().err
    assert error.startswith("likeness: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not Path("out").exists()


def test_a_classifier_has_no_samples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("classifier.ckpt") == 1
    assert "classifier.ckpt" in capsys.readouterr().err


def test_an_interrupted_sampling_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sampling, "decode", interrupt)
    assert run("digits.ckpt", *FEW) == 130
    assert capsys.readouterr().err == "likeness: interrupted\n"
    assert not Path("out").exists()
