"""The radial data are the paper's: the authors' own classifiers score on them what their code says."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax

from datamodules import Radial
from datamodules.points import double_cone
from tests.reference import needs_reference, published, radial_test_split, representations

PUBLISHED = [(4, width, seed) for width in (16, 32, 64, 128) for seed in range(5)]


def loaded(num_classes: int = 4) -> Radial:
    data = Radial(num_classes=num_classes)
    data.prepare_data()
    data.setup()
    return data


@needs_reference
@pytest.mark.parametrize(("num_classes", "width", "seed"), PUBLISHED)
def test_the_authors_classifiers_score_what_they_published(num_classes: int, width: int, seed: int) -> None:
    """``representations`` evaluates on its own copy of the split, so that copy is compared first."""
    split = loaded(num_classes).splits["test"]
    assert torch.equal(split.x, radial_test_split()[0])
    f, g = representations(width, seed)
    log_p = log_softmax((f @ g.T).double(), dim=1)
    key = {"K": num_classes, "width": width, "seed": seed}
    model = next(m for m in published()["models"] if key.items() <= m.items())
    assert float((log_p.argmax(1) == split.y).double().mean()) == pytest.approx(model["test_acc"], abs=1e-12)
    assert -float(log_p[range(2000), split.y].mean()) == pytest.approx(model["test_nll"], rel=1e-5)


@pytest.mark.parametrize("num_classes", [2, 4, 6, 10, 18])
def test_a_class_is_a_double_cone(num_classes: int) -> None:
    """Points in the middle of each cone, on both sides of the origin, at any distance."""
    for label in range(num_classes):
        angle = math.pi / num_classes * (label + 0.5)
        ray = torch.tensor([[math.cos(angle), math.sin(angle)]])
        points = torch.cat([0.01 * ray, 50 * ray, -ray])
        assert double_cone(points, num_classes).tolist() == [label] * 3


def test_the_last_class_is_closed() -> None:
    assert double_cone(torch.tensor([[-2.0, 0.0]]), 6).tolist() == [5]
    assert double_cone(torch.tensor([[2.0, 0.0]]), 6).tolist() == [0]


def test_labels_agree_with_the_angle_of_the_line() -> None:
    x = loaded(18).splits["train"].x.double().numpy()
    expected = np.floor(np.arctan2(x[:, 1], x[:, 0]) % math.pi / (math.pi / 18))
    assert (loaded(18).splits["train"].y.numpy() == expected).mean() > 0.9999  # rounding at a border


def test_splits_are_separate_draws_of_fixed_size() -> None:
    splits = loaded().splits
    assert {name: len(split) for name, split in splits.items()} == {"train": 20_000, "val": 2_000, "test": 2_000}
    points = torch.cat([split.x for split in splits.values()])
    assert len(points.unique(dim=0)) == len(points)
    torch.testing.assert_close(points.std(0), torch.tensor([3.0, 3.0]), rtol=0.02, atol=0)
    assert points.dtype == torch.float32


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        Radial(num_classes=1)
