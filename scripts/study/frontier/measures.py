"""What is measured of a finished run of the frontier study: its bound of each test image, and more of a few."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_modules.checkpoints import load_module
from lightning_modules.diffusion import VariationalDiffusion
from likeness.diffusion.encoders import IdentityEncoder
from likeness.diffusion.schedules import LinearSchedule
from scripts.evaluate.bounds import BoundEvaluation, Depth
from scripts.evaluate.data import open_split
from scripts.inputs import default_data, load_data
from scripts.reporting import Row, write_arrays, write_json
from scripts.study.frontier.arms import FrontierRun
from scripts.study.frontier.checks import coded_sizes, flow_bounds, time_statistics
from scripts.study.frontier.data import DATA, fingerprint

EVALUATION_SEED = 0  # of the noise: the same for all arms, and a function of the image and the draw
FIT_IMAGES = 512  # of training, each seen in every bin or step by what is fitted
INFINITE = Depth(None, "one")
# Of one run of an arm, after all trainings: the flow takes as long as a training.
CHECKS: dict[str, tuple[str, Callable[[BoundEvaluation], Row]]] = {
    "times": ("a", time_statistics),
    "coder": ("f", coded_sizes),
    "flow": ("a", flow_bounds),
}


@dataclass(frozen=True)
class Protocol:
    """How a run is evaluated."""

    draws: int = 8  # of the noise of each image
    limit: int | None = None  # the most test images, beside what the data set says


def kept_row(path: Path, settings: Row) -> Row | None:
    """What is kept in a file; None where nothing is.

    Raises ValueError naming what differs where it is of other settings.
    """
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    kept = content["settings"]
    for name in sorted({*kept, *settings}):
        if kept.get(name) != settings.get(name):
            raise ValueError(f"{path} is of {name} {kept.get(name)}, not {settings.get(name)}: choose another --out")
    return dict(content["row"])


def settings_of(run: FrontierRun, protocol: Protocol) -> Row:
    """All that what is measured is a function of, as JSON has it."""
    said = run.settings() | {"seed": run.seed, "steps": run.steps, "images": fingerprint(run.file)}
    said |= {"draws": protocol.draws, "limit": _limit(run, protocol)}
    return dict(json.loads(json.dumps(said)))


def row_file(run: FrontierRun, out: Path) -> Path:
    """Where the row of a run is kept; its bounds of each image lie beside it."""
    return out / "rows" / f"{run.name}.json"


def check_file(run: FrontierRun, check: str, out: Path) -> Path:
    """Where the answer of a check of one model is kept."""
    return out / "checks" / f"{run.name}_{check}.json"


def image_bits(run: FrontierRun, out: Path) -> dict[str, np.ndarray]:
    """Bits per dimension of each test image, the mean over draws, by how it was evaluated: ``bpd``, ..., [N] each."""
    with np.load(row_file(run, out).with_suffix(".npz"), allow_pickle=False) as content:
        return dict(content)


def train_and_measure(run: FrontierRun, protocol: Protocol, out: Path) -> None:
    """Train what is not trained yet, and keep its row."""
    run.ensure_trained(out, "cpu")
    with run.threads():
        row, bits = measure(run, protocol, out)
    path = row_file(run, out)
    write_arrays(path.with_suffix(".npz"), bits)
    write_json(path, {"settings": settings_of(run, protocol), "row": row})


def checks_of(run: FrontierRun) -> list[str]:
    """Which checks a run has: the first of its arm on the digits alone."""
    if (run.data, run.seed, run.times) != ("digits", 0, 1):
        return []
    return [name for name, (arm, _) in CHECKS.items() if arm == run.arm]


def keep_check(run: FrontierRun, check: str, protocol: Protocol, out: Path) -> None:
    """Ask a finished model, and keep the answer."""
    with run.threads():
        row = CHECKS[check][1](evaluation_of(run, protocol, out))
    write_json(check_file(run, check, out), {"settings": settings_of(run, protocol), "row": row})


def measure(run: FrontierRun, protocol: Protocol, out: Path) -> tuple[Row, dict[str, np.ndarray]]:
    """The row of a trained run, and its bounds of each image."""
    evaluation = evaluation_of(run, protocol, out)
    model = evaluation.module.diffusion
    row: Row = {"data": run.data, "arm": run.arm, "seed": run.seed, "times": run.times, "steps": run.steps}
    row |= {"parameters": sum(weight.numel() for weight in model.parameters())}
    own = INFINITE if model.volatility is None else INFINITE._replace(volatility="learned")
    terms = evaluation.elbo_bits(own, uniform=True)
    row |= dict(zip(model.terms_kind._fields, terms.mean((0, 2)).tolist(), strict=True))
    bits = {"bpd": terms.sum(1).mean(0)}
    if not isinstance(model.encoder, IdentityEncoder):
        fitted = INFINITE._replace(volatility="fitted")
        bits["bpd_fitted"] = evaluation.elbo_bits(fitted, uniform=True).sum(1).mean(0)
    if run.arm == "d":
        bits["bpd_scalar"] = on_scalar_path(evaluation).sum(1).mean(0)
    row |= {name: float(values.mean()) for name, values in bits.items()}
    return row, {name: values.numpy() for name, values in bits.items()}


def evaluation_of(run: FrontierRun, protocol: Protocol, out: Path) -> BoundEvaluation:
    """A finished run with its test split, and with training images to fit on."""
    folder, device = run.folder(out), torch.device("cpu")
    module = load_module(folder).eval().requires_grad_(False)
    assert isinstance(module, VariationalDiffusion)
    data = load_data(default_data(str(folder)))
    test = open_split(data, "test", device, limit=_limit(run, protocol))
    train = open_split(data, "train", device, limit=FIT_IMAGES)
    return BoundEvaluation(module, test, train, protocol.draws, EVALUATION_SEED)


def _limit(run: FrontierRun, protocol: Protocol) -> int | None:
    limits = [limit for limit in (DATA[run.data].test_images, protocol.limit) if limit is not None]
    return min(limits, default=None)


def on_scalar_path(evaluation: BoundEvaluation) -> Tensor:
    """The bound of the same networks with one gamma for all dimensions, whose map is constant: [draws, 3, N]."""
    model, own = evaluation.module.diffusion, evaluation.module.diffusion.schedule
    model.schedule = LinearSchedule(own.gamma_min, own.gamma_max)
    try:
        return evaluation.elbo_bits(INFINITE, uniform=True)
    finally:
        model.schedule = own
