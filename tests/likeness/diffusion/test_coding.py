"""The lossless coder: what comes back, and how many bits it takes, against the bound and against known numbers."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from likeness.diffusion.coding import Coded, Coder
from likeness.diffusion.encoders import TrainableEncoder
from likeness.diffusion.fitting import fit_ratio
from likeness.diffusion.likelihoods import log_weight
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import scaled
from likeness.diffusion.variance_ratio import LearnedRatio
from likeness.diffusion.volatility import LearnedVolatility
from tests.likeness.diffusion.exact_models import DiscreteHead, Smooth, factor_of, gaussian_model, model_of
from tests.likeness.diffusion.multivariate_paths import Path, cubes_with_floor
from tests.likeness.diffusion.test_bounds import SOURCES, source_model
from tests.likeness.diffusion.test_multivariate_models import trained

pytest.importorskip("constriction")
DIMS = 64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def of_source(name: str, num_steps: int, ratio: bool) -> DiffusionModel:
    """The exact denoiser of 64 independent dimensions, with or without the ratio that is fitted on samples of it."""
    model = source_model(SOURCES[name], -13.3)
    model.input_shape, model.num_steps = (DIMS,), num_steps
    if ratio:
        model.ratio = fit_ratio(model, [(samples(name, 64, 9), None)], generator(1))
    return model


def samples(name: str, count: int, seed: int = 0) -> Tensor:
    data = SOURCES[name]
    return data[torch.randint(0, len(data), (count, DIMS), generator=generator(seed))]


@pytest.mark.parametrize(
    ("name", "num_steps", "ratio", "predicted"),
    [
        ("two levels", 20, False, 1.6463),
        ("two levels", 20, True, 1.3519),
        ("two levels", 100, False, 1.1078),
        ("sixteen", 20, False, 6.5534),
        ("sixteen", 20, True, 4.4989),
    ],
)
def test_sources_cost_what_is_predicted(name: str, num_steps: int, ratio: bool, predicted: float) -> None:
    """L13: net bits a dimension within .03 of the bound of this depth, 200 samples of 64 dimensions; all come back.

    Where the bound itself varies more between samples, within two standard errors.
    """
    model = of_source(name, num_steps, ratio)
    coder, images = Coder(model, resolution=4, batch_size=100), samples(name, 200)
    coded = coder.encode(images)
    assert torch.equal(coder.decode(coded), images)
    error = log_weight(model, images[:100], generator(2)).std().item() / (math.log(2) * DIMS * math.sqrt(200))
    assert coded.net_bits / images.numel() == pytest.approx(predicted, abs=max(0.03, 2 * error))
    borrowed = coded.borrowed_bits / (100 * DIMS)
    assert borrowed == pytest.approx((num_steps + 1) * (2 + 2.047), rel=0.02)


def everything(num_steps: int = 6) -> DiffusionModel:
    """In float32 as models are: a trained encoder, the counter-term, ratio and volatility of each dimension."""
    torch.manual_seed(0)
    parts = {"ratio": LearnedRatio(dims=(3,)), "volatility": LearnedVolatility(dims=(3,))}
    for part in parts.values():
        torch.nn.init.normal_(part.head.bias, 0.3, 0.2)
    encoder = TrainableEncoder(Smooth())
    return model_of(Smooth(), encoder, dims=3, counter_term=True, num_steps=num_steps, **parts).float()


@pytest.mark.parametrize(("count", "resolution"), [(1, 1), (7, 2), (16, 16)])
def test_everything_comes_back(count: int, resolution: int) -> None:
    """Of any number of images, in batches that do not divide it; in another order it is another stream."""
    coder = Coder(everything(), resolution, seed=3, batch_size=5)
    images = torch.randint(0, 256, (count, 3), generator=generator())
    coded = coder.encode(images)
    assert torch.equal(coder.decode(coded), images)
    if count > 1:
        other = coder.encode(images.flip(0))
        assert not np.array_equal(other.words, coded.words)
        assert torch.equal(coder.decode(other), images.flip(0))


def test_the_net_bits_are_the_bound() -> None:
    """Of a trained encoder with a volatility, in float32, in batches: within three standard errors of the paths'."""
    model = gaussian_model(1 / 3, 0.5, counter_term=True, num_steps=20, volatility=LearnedVolatility()).float()
    torch.nn.init.constant_(model.volatility.head.bias, 0.2)  # type: ignore[union-attr, arg-type]
    images = torch.randint(0, 256, (2000, 1), generator=generator())
    bits = -log_weight(model, images, generator(5)) / math.log(2)
    found = Coder(model, resolution=4, batch_size=300).encode(images).net_bits / 2000
    assert found == pytest.approx(bits.mean().item(), abs=3 * bits.std().item() * math.sqrt(2 / 2000))


def damaged(coded: Coded, index: int) -> Coded:
    words = coded.words.copy()
    words[index] ^= np.uint32(1 << 7)
    return coded._replace(words=words)


@pytest.mark.parametrize("what", ["a bit", "a word fewer", "a weight", "the seed", "the batches"])
def test_what_is_wrong_is_found_out(what: str) -> None:
    """L13: the stack does not end as it began. It says so, and does not answer other images."""
    model = everything()
    coder = Coder(model, seed=3, batch_size=5)
    coded = coder.encode(torch.randint(0, 256, (7, 3), generator=generator()))
    if what == "a bit":
        coded = damaged(coded, len(coded.words) // 2)
    elif what == "a word fewer":
        coded = coded._replace(words=coded.words[:-1])
    elif what == "a weight":
        weight = model.network.first.weight  # type: ignore[union-attr]
        with torch.no_grad():
            weight.view(torch.int32)[0, 0] ^= 1 << 12  # type: ignore[operator, index]
    else:
        coder = Coder(model, seed=4, batch_size=5) if what == "the seed" else Coder(model, seed=3, batch_size=4)
    with pytest.raises(ValueError, match=r"does not end in the words that it began with|no more words to read"):
        coder.decode(coded)


@pytest.mark.parametrize(("num_steps", "share"), [(20, 0.0), (1, 0.9)])
def test_steps_too_few_for_the_window_are_counted(num_steps: int, share: float) -> None:
    """Where q lies outside of what both sides count cells in, images come back, and the answer says how much does."""
    head = DiscreteHead(scaled(SOURCES["sixteen"], 256, torch.float64), factor_of(1.0), "v", False)
    model = model_of(head, dims=8, num_steps=num_steps)
    images = SOURCES["sixteen"][torch.randint(0, 16, (20, 8), generator=generator())]
    coder = Coder(model)
    coded = coder.encode(images)
    assert torch.equal(coder.decode(coded), images)
    assert coded.outside == share if share == 0 else coded.outside > 0.4


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"a coder needs finite depth, got num_steps=None"):
        Coder(model_of(Smooth(), dims=3))
    with pytest.raises(ValueError, match="resolution must be at least 1, got 0"):
        Coder(everything(), resolution=0)


def test_a_schedule_for_each_dimension() -> None:
    """What went in comes back, of a trained encoder in float32; with exact networks at the cost of the bound."""
    model = trained(num_steps=6).float()
    images = torch.randint(0, 256, (12, 3), generator=generator())
    coder = Coder(model, batch_size=5)
    assert torch.equal(coder.decode(coder.encode(images)), images)
    head = DiscreteHead(scaled(SOURCES["two levels"], 256, torch.float64), factor_of(1.0), "v", False)
    model = model_of(head, schedule=Path(cubes_with_floor), dims=2, num_steps=50)
    images = SOURCES["two levels"][torch.randint(0, 2, (1000, 2), generator=generator())]
    bits = -log_weight(model, images, generator(5)) / math.log(2)
    found = Coder(model, batch_size=500).encode(images).net_bits / 1000
    assert found == pytest.approx(bits.mean().item(), abs=3 * bits.std().item() * math.sqrt(2 / 1000))
