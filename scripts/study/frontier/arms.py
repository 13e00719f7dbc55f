"""The arms of the frontier study: equal networks, data and numbers of steps, one ingredient more or less."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from likeness.checks import require_one_of, require_positive
from likeness.numerics import threads_for
from scripts.cli.configurations import located, read_configuration
from scripts.study.frontier.data import DATA
from scripts.study.training_run import TrainingRun, as_arguments, flattened

VDM, DIFFENC, NT = (Path(f"configs/experiment/digits_{name}.yaml") for name in ("vdm", "diffenc", "diffenc_nt"))
COMPARED = ("model", "data", "trainer.precision", "trainer.gradient_clip_val", "trainer.callbacks")
NETWORK_LR = 0.005  # of the configurations above
MAP = {"model.init_args.network.init_args.gamma_map": True}
# The schedule moves by less than .5 in 2000 steps at the networks' rate; at 20 times that rate the bound gets worse.
FREE_SCHEDULE = {"model.init_args.schedule_lr": 4 * NETWORK_LR}
FREE_VOLATILITY = {"model.init_args.volatility_lr": NETWORK_LR}


class Arm(NamedTuple):
    """What is trained: an experiment on the digits, what is put over it, and the arms that it is compared with."""

    title: str
    config: Path
    overlays: Sequence[str] = ()  # of configs/diffusion
    options: dict[str, Any] = {}  # noqa: RUF012
    controls: Sequence[str] = ()


ARMS = {
    "a": Arm("VDM", VDM),
    "b": Arm("VDM, times by alpha^2", VDM, ["signal_times"], controls=["a"]),
    "c": Arm("VDM, adaptive times", VDM, ["adaptive_times"], controls=["a"]),
    "d": Arm("VDM, gamma of each dimension", VDM, ["multivariate_schedule"], FREE_SCHEDULE, ["a", "a_map"]),
    "e": Arm(
        "VDM, gamma of each dimension by a context",
        VDM,
        ["gaussian_context"],
        FREE_SCHEDULE,
        ["d"],
    ),
    "a_map": Arm("VDM that is told a constant map of gamma", VDM, [], MAP, ["a"]),
    "a_matched": Arm(
        "VDM with the parameters of j",
        VDM,
        options={"model.init_args.network.init_args.width": 36, "model.init_args.network.init_args.groups": 9},
        controls=["a"],
    ),
    "f": Arm("DiffEnc", DIFFENC, controls=["a"]),
    "g": Arm("DiffEnc, volatility", DIFFENC, ["learned_volatility"], FREE_VOLATILITY, ["f"]),
    "h": Arm("DiffEnc-nt", NT, controls=["a"]),
    "i": Arm("DiffEnc-nt, volatility", NT, ["learned_volatility"], FREE_VOLATILITY, ["h", "a"]),
    "j": Arm(
        "DiffEnc, volatility, times by alpha^2, gamma of each dimension",
        DIFFENC,
        ["learned_volatility", "signal_times", "multivariate_schedule"],
        FREE_VOLATILITY | FREE_SCHEDULE,
        ["f", "a_matched"],
    ),
}


class Plan(NamedTuple):
    """Trainings of some arms on one data set, with these many seeds and times the data set's steps."""

    data: str
    arms: Sequence[str]
    seeds: int
    times: int = 1


PLANS = (
    Plan("digits", tuple(ARMS), seeds=5),
    Plan("cifar10", ("a", "b", "f", "g", "j"), seeds=3),
    Plan("mnist", ("a", "j"), seeds=2),
    Plan("digits", ("a", "b", "c"), seeds=2, times=4),
    # without these the claim that everything together gains something could not be decided on all data
    Plan("cifar10", ("a_matched",), seeds=3),
    Plan("mnist", ("f", "a_matched"), seeds=2),
)


@dataclass(frozen=True)
class FrontierRun(TrainingRun):
    """One arm on one data set, trained with one seed."""

    data: str
    arm: str
    seed: int
    times: int
    steps: int
    file: Path = field(default=Path(), compare=False)  # of the images

    def __str__(self) -> str:
        return f"{self.data}, arm {self.arm}, seed {self.seed}, {self.steps} steps"

    @property
    def name(self) -> str:
        """Of its folder and of what is kept of it."""
        return f"{self.data}_{self.arm}_{self.times}x_seed{self.seed}"

    def folder(self, out: Path) -> Path:
        return out / "runs" / self.name

    def threads(self) -> AbstractContextManager[None]:
        return threads_for(0)  # one: runs go side by side

    def configs(self) -> list[Path]:
        """From left to right."""
        arm = ARMS[self.arm]
        return [located(arm.config), *(located(Path(f"configs/diffusion/{name}.yaml")) for name in arm.overlays)]

    def options(self) -> dict[str, Any]:
        """Over its configurations."""
        return DATA[self.data].options(self.file) | ARMS[self.arm].options

    def arguments(self) -> list[str]:
        configs = [word for config in self.configs() for word in ("--config", str(config))]
        options = {"seed_everything": self.seed, "trainer.limit_val_batches": 0, **self.options()}
        return [*configs, *as_arguments(options)]

    def settings(self) -> dict[str, Any]:
        """All that decides the training, but for the file's place."""
        said: dict[str, Any] = {}
        for config in self.configs():
            said |= flattened(read_configuration(config))
        said |= self.options()
        kept = {name: value for name, value in said.items() if name.startswith(COMPARED)}
        return {name: value for name, value in kept.items() if name != "data.init_args.file"}

    def settings_of(self, folder: Path, hparams: dict[str, Any]) -> dict[str, Any]:
        return flattened(read_configuration(folder / "config.yaml"))


def planned(
    data: Sequence[str], arms: Sequence[str], seeds: int | None = None, share: float = 1.0
) -> Iterator[FrontierRun]:
    """The runs of all plans in the order of training, of these data sets and arms and of ``seeds`` seeds at most.

    ``share`` of the steps, rounded up. Raises ValueError for names that are none, seeds below 1 and no share.
    """
    for name in data:
        require_one_of(name, tuple(DATA), "--data")
    for name in arms:
        require_one_of(name, tuple(ARMS), "--arms")
    require_positive(**{"--seeds": seeds})
    if not 0 < share <= 1:
        raise ValueError(f"--steps is a share of the steps in (0, 1], got {share}")
    for plan in PLANS:
        if plan.data not in data:
            continue
        count = plan.seeds if seeds is None else min(seeds, plan.seeds)
        for seed, arm in product(range(count), (name for name in plan.arms if name in arms)):
            steps = math.ceil(share * plan.times * DATA[plan.data].steps)
            yield FrontierRun(plan.data, arm, seed, plan.times, steps)
