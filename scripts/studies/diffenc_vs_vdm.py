"""VDM, DiffEnc without parameters (NT) and DiffEnc: the same score network and training, and what ratios gain.

The comparison of Nielsen et al. 2024 (arXiv 2310.19789) at a size that trains on two cores, and the experiment that
the paper leaves out: variances of another ratio than 1, in finite depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from lightning_modules.checkpoints import load_module
from lightning_modules.diffusion_module import DiffusionModule
from scripts.bound_evaluation import BoundEvaluation
from scripts.compare import choose_device, default_data, load_data
from scripts.depths import Depth
from scripts.evaluation_data import open_split
from scripts.studies.diffenc_figures import draw_gains, draw_models
from scripts.studies.diffenc_tables import TERMS, gain_means, model_means, printed_gain, printed_model, welch_tests
from scripts.studies.diffusion_runs import MODELS, DiffusionRun, located, read_yaml
from scripts.studies.output import StudyRow, publish, show
from scripts.studies.ratio_gains import gains, loss_rates
from scripts.studies.training_run import ensure_all_trained

FIT_SAMPLES = 512  # of the training split, at most: each is seen at every step
EVALUATION_SEED = 0  # of the noise, the same for all models: their differences are then less noisy than their bounds


@dataclass(frozen=True)
class Setting:
    """What is trained and how it is evaluated."""

    config: Path  # of a DiffEnc, complete
    seeds: int = 3
    steps: int | None = None  # of training; None is what the configuration says
    draws: int = 10  # of the noise of each sample
    depths: Sequence[int] = (4, 10, 50, 100)  # of the ratio experiment; none leaves it out
    ratio_steps: int = 300  # of training a learned ratio
    limit: int | None = None  # the most samples of each split

    def runs(self) -> list[DiffusionRun]:
        """In the order of training. Raises ValueError for sizes below 1, FileNotFoundError for no configuration."""
        sizes = {"seeds": self.seeds, "steps": self.steps, "draws": self.draws, "limit": self.limit}
        for name, value in (sizes | {"depths": min(self.depths, default=None)}).items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        config = located(self.config)
        steps = self.steps or int(read_yaml(config)["trainer"]["max_steps"])
        return [DiffusionRun(config, model, seed, steps) for seed, model in product(range(self.seeds), MODELS)]


def run(out: Path, setting: Setting, device: str) -> None:
    """Train what is not trained yet, evaluate, print the tables, write them and the figures."""
    runs = setting.runs()
    ensure_all_trained(runs, out, device)
    seeds: list[StudyRow] = []
    ratios: list[StudyRow] = []
    for trained in runs:
        evaluation = evaluated(trained, out, setting, device)
        place: StudyRow = {"model": trained.model, "seed": trained.seed}
        seeds += [place | row for row in bounds(evaluation)]
        ratios += [place | row for row in ratio_experiment(evaluation, setting)]
    report(out, seeds, ratios)


def evaluated(trained: DiffusionRun, out: Path, setting: Setting, device: str) -> BoundEvaluation:
    """A finished run with its test split, and with training samples to fit ratios on."""
    folder, where = trained.folder(out), choose_device(device)
    module = load_module(folder).eval().requires_grad_(False).to(where)
    assert isinstance(module, DiffusionModule)
    data = load_data(default_data(str(folder)))
    test = open_split(data, "test", where, limit=setting.limit)
    train = open_split(data, "train", where, limit=min(setting.limit or FIT_SAMPLES, FIT_SAMPLES))
    return BoundEvaluation(module, test, train, setting.draws, EVALUATION_SEED)


def bounds(evaluation: BoundEvaluation) -> list[StudyRow]:
    """The bound in infinite depth on the test split and on the training samples, in bits per dimension."""
    splits = {"test": evaluation.split, "train": evaluation.train}
    rows = {name: replace(evaluation, split=split).elbo(Depth(None, "one")) for name, split in splits.items()}
    return [{"split": name, **{term: row[term] for term in (*TERMS, "bpd_se")}} for name, row in rows.items()]


def ratio_experiment(evaluation: BoundEvaluation, setting: Setting) -> list[StudyRow]:
    """A row for each T."""
    if not setting.depths:
        return []
    rates = loss_rates(evaluation.module.diffusion, evaluation.split, evaluation.seed)
    return [gains(evaluation, depth, setting.ratio_steps, rates) for depth in setting.depths]


def report(out: Path, seeds: Sequence[StudyRow], ratios: Sequence[StudyRow]) -> None:
    """Tables on the terminal and as CSV files, and figures."""
    means, tests, gained = model_means(seeds), welch_tests(seeds), gain_means(ratios)
    show("bits per dimension in infinite depth, mean ± standard error over seeds", [*map(printed_model, means)])
    show("one-sided Welch test over seeds", tests)
    tables = {"seeds": seeds, "models": means, "tests": tests}
    figures = {"models": draw_models(seeds)}
    if ratios:
        show(
            "T steps: the bound with ratio 1, and what others gain; the prediction is the limit of large T",
            [*map(printed_gain, gained)],
        )
        tables |= {"ratios": ratios, "gains": gained}
        figures["gains"] = draw_gains(gained)
    publish(out, tables=tables, figures=figures)
