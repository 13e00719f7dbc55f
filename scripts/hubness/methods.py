"""Methods as the command line writes them: ``f_norm+mutual_proximity:variant=gamma``."""

from __future__ import annotations

import inspect
from typing import Any, get_args, get_type_hints

from torch import Tensor

from likeness.hubness.feature_transforms import FeatureTransform
from likeness.hubness.reduction_base import HubnessReduction, QueryOperation
from likeness.hubness.reductions import REDUCTIONS, Composition, reduction
from likeness.neighbours.distances import DistanceName
from scripts.cli.configurations import read_value

METHODS = ["base", "f_norm", "mutual_proximity", "f_norm+mutual_proximity", "csls", "local_scaling", "nicdm"]

BASE = "base"
SYNTAX = "write name, name:option=value,option=value, or several joined by + (features first)"


class Base(FeatureTransform):
    """The points as they are: what reductions are compared with."""

    name = BASE

    def __init__(self, metric: DistanceName = "euclidean") -> None:
        super().__init__(metric)

    @property
    def operation(self) -> QueryOperation:
        """Nothing."""
        return QueryOperation()

    def _fit_transform(self, index: Tensor) -> None:
        pass

    def _transform(self, points: Tensor) -> Tensor:
        return points


def build_method(text: str, metric: DistanceName | None = None) -> HubnessReduction:
    """The reduction that a text names. Each step takes the metric, if one is given that it knows and the text has none.

    Raises ValueError for a name, an option or a value that does not exist, and lists those that do.
    """
    steps = [_step(part, metric) for part in text.split("+")]
    if len(steps) > 1 and any(isinstance(step, Base) for step in steps):
        raise ValueError(f"{BASE} is the points as they are, and no step of {text}")
    return reduction(steps)


def transforms_points(method: HubnessReduction) -> bool:
    """Whether the method moves points and compares them as before, so that there are vectors to write."""
    return isinstance(method.last if isinstance(method, Composition) else method, FeatureTransform)


def _step(text: str, metric: DistanceName | None) -> HubnessReduction:
    name, _, given = text.strip().partition(":")
    options = dict(_option(name, part) for part in given.split(",")) if given else {}
    kind = Base if name == BASE else REDUCTIONS.get(name)
    if kind is None:
        raise ValueError(f"there is no method {name!r}: {SYNTAX}; the names are {BASE}, {', '.join(REDUCTIONS)}")
    if "metric" not in options and metric in metrics_of(kind):
        options["metric"] = metric
    try:
        return Base(**options) if kind is Base else reduction(name, **options)
    except TypeError as error:
        raise ValueError(f"{text}: {error}") from error


def metrics_of(kind: type[HubnessReduction]) -> tuple[str, ...]:
    """The metrics that a method can be told; empty where it has none of its own."""
    if "metric" not in inspect.signature(kind).parameters:
        return ()
    return get_args(get_type_hints(kind.__init__)["metric"])


def _option(name: str, text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or not value.strip():
        raise ValueError(f"{name}: {text!r} is no option: {SYNTAX}")
    return key.strip(), read_value(value)
