"""At which depths T, and with which ratio of the variances, a diffusion model is evaluated."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.variance_ratio import VarianceRatio

RatioName = Literal["one", "learned", "fitted"]


class Depth(NamedTuple):
    """T steps, None for infinitely many, and which ratio of the variances they have."""

    num_steps: int | None
    ratio: RatioName

    @property
    def label(self) -> str:
        """T as it is written: a number, or inf."""
        return "inf" if self.num_steps is None else str(self.num_steps)


def parse_steps(text: str) -> list[int | None]:
    """``10,100,inf`` as numbers of steps, None for inf; raises ValueError naming what is none."""
    return [_steps(word.strip()) for word in text.split(",")]


def _steps(word: str) -> int | None:
    if word == "inf":
        return None
    try:
        steps = int(word)
    except ValueError:
        raise ValueError(f"--steps takes whole numbers and inf, separated by commas, got {word!r}") from None
    if steps < 1:
        raise ValueError(f"--steps must be at least 1, got {steps}")
    return steps


def choose_depths(model: DiffusionModel, steps: Sequence[int | None], ratio: RatioName | None) -> list[Depth]:
    """The depths to evaluate; where no ratio is named it is the model's own, and 1 in infinite depth.

    Raises ValueError for a learned ratio that the model has not, and for any but 1 in infinite depth.
    """
    if ratio == "learned" and model.ratio is None:
        raise ValueError("--ratio learned: the model has no ratio, it was trained with variances of ratio 1")
    if ratio not in (None, "one") and None in steps:
        raise ValueError(f"--ratio {ratio} needs finite --steps: at T = inf any variance ratio but 1 costs infinity")
    own: RatioName = "one" if model.ratio is None else "learned"
    return [Depth(number, ratio or ("one" if number is None else own)) for number in steps]


@contextmanager
def at_depth(model: DiffusionModel, num_steps: int | None, ratio: VarianceRatio | None) -> Iterator[None]:
    """The model in another depth, with another ratio, and afterwards as it was."""
    before = model.num_steps, model.ratio
    try:
        _set(model, num_steps, ratio)
        yield
    finally:
        _set(model, *before)


def _set(model: DiffusionModel, num_steps: int | None, ratio: VarianceRatio | None) -> None:
    model.ratio = None  # which goes with any number of steps
    model.num_steps, model.ratio = num_steps, ratio
