"""VDM, DiffEnc without parameters (NT) and DiffEnc: the same score network and training, and what ratios gain.

The comparison of Nielsen et al. 2024 (arXiv 2310.19789) at a size that trains on two cores, and the experiment that
the paper leaves out: variances of another ratio than 1, in finite depth (section 3.3, appendices F and G). To first
order in 1 / T the best ratio gains the integral over t of l(t)^2 / (d T) nats, where l(t) is the diffusion loss at time
t in infinite depth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from operator import itemgetter
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from lightning_modules.checkpoints import load_module
from lightning_modules.diffusion import VariationalDiffusion
from likeness.checks import require_positive
from likeness.diffusion.elbo import bits_per_dim, continuous_loss, step_loss
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import training_noise
from likeness.diffusion.variance_ratio import LearnedRatio
from likeness.figures.style import MARKERS, PAGE, PALETTE, REFERENCE, blank, in_style
from likeness.seeding import generator, mix, seeded
from scripts.cli.configurations import located, read_configuration
from scripts.evaluate.bounds import BoundEvaluation, Depth, VarianceName, at_depth
from scripts.evaluate.data import EvaluatedSplit, open_split
from scripts.inputs import choose_device, default_data, load_data
from scripts.reporting import Report, Row, distinct, grouped, publish
from scripts.study.training_run import TrainingRun, as_arguments, ensure_all_trained, flattened, given

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What makes each model of the configuration of a DiffEnc; score network, data and training stay the same.
MODELS: dict[str, dict[str, Any]] = {
    "VDM": {"model.class_path": "lightning_modules.VariationalDiffusion"},
    "NT": {"model.init_args.encoder": None, "model.init_args.lean": False},
    "DiffEnc": {},
}
COMPARED = ("model", "data", "trainer.precision", "trainer.gradient_clip_val")
SMALL = {"seeds": 2, "steps": 4, "draws": 2, "depths": [4], "ratio_steps": 4, "limit": 20}
FIT_SAMPLES = 512  # of the training split, at most: each is seen at every step
EVALUATION_SEED = 0  # of the noise, the same for all models: their differences are then less noisy than their bounds
POINTS = 50  # of l(t)
BATCH_SIZE, LEARNING_RATE = 64, 0.01  # of a learned ratio
RATIOS: tuple[VarianceName, ...] = ("one", "learned", "fitted")
_TRAINING, _RATES = 0x4A71, 0x4A7E  # set these streams apart from other uses of the same seed
TERMS = ("reconstruction", "latent", "diffusion", "bpd")
ERRORS = ("bpd_sample_se", "bpd_draw_se")
GAINS = ("gain_predicted", "gain_fitted", "gain_learned")
BPDS = ("bpd_one", "bpd_fitted", "bpd_learned")
SPLITS = {"test": "test", "train": "training samples"}
KINDS = {"fitted": "closed form", "learned": "learned"}


@dataclass(frozen=True)
class DiffusionRun(TrainingRun):
    """One of the ``MODELS``, trained with one seed."""

    config: Path
    model: str
    seed: int
    steps: int

    def __str__(self) -> str:
        return f"{self.model}, seed {self.seed}, {self.steps} steps"

    def folder(self, out: Path) -> Path:
        return out / f"{self.model.lower()}_seed{self.seed}"

    def arguments(self) -> list[str]:
        return ["--config", str(self.config), *as_arguments({"seed_everything": self.seed, **MODELS[self.model]})]

    def settings(self) -> dict[str, Any]:
        """What the configuration says; a VDM's own says nothing of encoders, and so nothing is asked of them."""
        said = flattened(read_configuration(self.config)) | MODELS[self.model]
        return {name: value for name, value in said.items() if name.startswith(COMPARED)}

    def settings_of(self, folder: Path, hparams: dict[str, Any]) -> dict[str, Any]:
        return flattened(read_configuration(folder / "config.yaml"))


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
        require_positive(seeds=self.seeds, steps=self.steps, draws=self.draws, limit=self.limit)
        require_positive(depths=min(self.depths, default=None))
        config = located(self.config)
        steps = self.steps or int(read_configuration(config)["trainer"]["max_steps"])
        return [DiffusionRun(config, model, seed, steps) for seed, model in product(range(self.seeds), MODELS)]


def run(
    out: Path = Path("runs/diffenc_vs_vdm"),
    config: str = "configs/experiment/digits_diffenc_vs_vdm.yaml",
    small: bool = False,
    seeds: int | None = None,
    steps: int | None = None,
    draws: int | None = None,
    depths: Sequence[int] | None = None,
    ratio_steps: int | None = None,
    limit: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Train what is not trained yet, evaluate, print the tables, write them and the figures.

    Args:
        out: Where everything is written.
        config: The training of the DiffEnc; the other two follow from it.
        small: 2 seeds, 4 steps, T = 4 and few samples: tries everything, shows nothing.
        seeds: Trainings of each model; 3 by default.
        steps: Steps of a training; by default those of the configuration.
        draws: Draws of the noise for each evaluated sample; 10 by default.
        depths: T of the ratio experiment, 4 10 50 100 by default; none leaves it out.
        ratio_steps: Steps in which a variance ratio is trained; 300 by default.
        limit: The most samples of each split to evaluate on.
        device: Where models are trained.
    """
    chosen = given(seeds=seeds, steps=steps, draws=draws, depths=depths, ratio_steps=ratio_steps, limit=limit)
    study(out, Setting(Path(config), **{**(SMALL if small else {}), **chosen}), device)


def study(out: Path, setting: Setting, device: str) -> None:
    """Train, evaluate, print and write one setting."""
    runs = setting.runs()
    ensure_all_trained(runs, out, device)
    seeds: list[Row] = []
    ratios: list[Row] = []
    for trained in runs:
        evaluation = evaluated(trained, out, setting, device)
        place: Row = {"model": trained.model, "seed": trained.seed}
        seeds += [place | row for row in bounds(evaluation)]
        ratios += [place | row for row in ratio_experiment(evaluation, setting)]
    report(out, seeds, ratios)


def evaluated(trained: DiffusionRun, out: Path, setting: Setting, device: str) -> BoundEvaluation:
    """A finished run with its test split, and with training samples to fit ratios on."""
    folder, where = trained.folder(out), choose_device(device)
    module = load_module(folder).eval().requires_grad_(False).to(where)
    assert isinstance(module, VariationalDiffusion)
    data = load_data(default_data(str(folder)))
    test = open_split(data, "test", where, limit=setting.limit)
    train = open_split(data, "train", where, limit=min(setting.limit or FIT_SAMPLES, FIT_SAMPLES))
    return BoundEvaluation(module, test, train, setting.draws, EVALUATION_SEED)


def bounds(evaluation: BoundEvaluation) -> list[Row]:
    """The bound in infinite depth on the test split and on the training samples, in bits per dimension."""
    splits = {"test": evaluation.split, "train": evaluation.train}
    rows = {name: replace(evaluation, split=split).elbo(Depth(None, "one")) for name, split in splits.items()}
    return [{"split": name, **{term: row[term] for term in (*TERMS, *ERRORS)}} for name, row in rows.items()]


def ratio_experiment(evaluation: BoundEvaluation, setting: Setting) -> list[Row]:
    """A row for each T."""
    if not setting.depths:
        return []
    rates = loss_rates(evaluation.module.diffusion, evaluation.split, evaluation.seed)
    return [gains(evaluation, depth, setting.ratio_steps, rates) for depth in setting.depths]


def gains(evaluation: BoundEvaluation, num_steps: int, ratio_steps: int, rates: Tensor) -> Row:
    """The bounds of one trained model in T steps, in bits per dimension, and by how much the ratios lower it.

    ``learned`` is a ratio that is trained for ``ratio_steps`` steps on the training split while the rest of the model
    stays what it is; ``fitted`` is the closed form of the training split; ``predicted`` follows from ``rates``.
    """
    model = evaluation.module.diffusion
    ratio = train_ratio(model, num_steps, evaluation.train, ratio_steps, evaluation.seed)
    with at_depth(model, num_steps, ratio, model.volatility):
        bpd: Row = {name: evaluation.elbo(Depth(num_steps, name))["bpd"] for name in RATIOS}
    return {
        "T": num_steps,
        **{f"bpd_{name}": value for name, value in bpd.items()},
        "gain_predicted": predicted_gain(rates, num_steps, model.dims),
        **{f"gain_{name}": bpd["one"] - bpd[name] for name in RATIOS[1:]},
    }


@torch.no_grad()
def loss_rates(model: DiffusionModel, split: EvaluatedSplit, seed: int) -> Tensor:
    """l(t) in nats, [POINTS], at the middles of equal parts of [0, 1]: the mean over all samples of a split."""
    total = torch.zeros(POINTS, dtype=torch.float64)
    source = generator(seed, _RATES, device=split.device)
    for batch in split.batches("the loss by time"):
        x = model.scale(batch.x, model.dtype)
        eps = torch.randn(x.shape, generator=source, device=x.device, dtype=x.dtype)
        for number in range(POINTS):
            error = model.rate_error(x, x.new_full((len(x),), (number + 0.5) / POINTS), eps)
            total[number] += continuous_loss(*error).double().sum().cpu()
    return total / split.size


def predicted_gain(rates: Tensor, num_steps: int, dims: int) -> float:
    """The integral of l(t)^2 / (d T) in bits per dimension, of ``rates`` l(t) at equally spaced t, in nats."""
    return float(bits_per_dim(rates.square().mean() / (dims * num_steps), dims))


def train_ratio(
    model: DiffusionModel, num_steps: int, train: EvaluatedSplit, ratio_steps: int, seed: int
) -> LearnedRatio:
    """A ratio that starts at 1, trained on the model's bound in T steps; nothing else changes."""
    with seeded(mix(seed, _TRAINING)):
        ratio = LearnedRatio(gamma_min=model.schedule.gamma_min, gamma_max=model.schedule.gamma_max).to(train.device)
    optimizer = torch.optim.Adam(ratio.parameters(), lr=LEARNING_RATE)
    with at_depth(model, num_steps, None, model.volatility):
        for number in range(ratio_steps):
            rows = torch.randint(train.size, (BATCH_SIZE,), generator=generator(seed, _TRAINING, number))
            noise_seed = mix(seed, _TRAINING)
            loss = ratio_loss(model, ratio, train.split[rows].x.to(train.device), noise_seed, number)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return ratio.requires_grad_(False)


def ratio_loss(model: DiffusionModel, ratio: LearnedRatio, images: Tensor, seed: int, step: int) -> Tensor:
    """The diffusion term of grey levels [B, ...] in bits per dimension; only the ratio gets a gradient."""
    assert model.num_steps is not None
    x = model.scale(images, model.dtype)
    noise = training_noise(x, seed, step, rank=0, world_size=1)
    with torch.no_grad():
        found = model.step_error(x, noise.t, noise.eps)
    rho = ratio(found.gamma_s, found.gamma_t)
    return bits_per_dim(model.num_steps * step_loss(found.error, found.dgamma, rho), model.dims).mean()


def report(out: Path, seeds: Sequence[Row], ratios: Sequence[Row]) -> None:
    """Tables on the terminal and as CSV files, and figures."""
    means, tests, gained = model_means(seeds), welch_tests(seeds), gain_means(ratios)
    Report(
        "bits per dimension in infinite depth, mean ± standard error over seeds", [*map(printed_model, means)]
    ).show()
    Report("one-sided Welch test over seeds", tests).show()
    tables = {"seeds": seeds, "models": means, "tests": tests}
    figures = {"models": draw_models(seeds)}
    if ratios:
        Report(
            "T steps: the bound with ratio 1, and what others gain; the prediction is the limit of large T",
            [*map(printed_gain, gained)],
        ).show()
        tables |= {"ratios": ratios, "gains": gained}
        figures["gains"] = draw_gains(gained)
    publish(out, tables=tables, figures=figures)


def model_means(seeds: Sequence[Row]) -> list[Row]:
    """For each split and model the terms of the bound over seeds, with ``<term>_se``."""
    return _means(sorted(seeds, key=itemgetter("split")), ("split", "model"), TERMS)


def gain_means(ratios: Sequence[Row]) -> list[Row]:
    """For each model and T the bounds and gains over seeds, with ``<name>_se``."""
    return _means(ratios, ("model", "T"), (*BPDS, *GAINS))


def _means(rows: Sequence[Row], by: Sequence[str], names: Sequence[str]) -> list[Row]:
    groups = list(dict.fromkeys(tuple(row[name] for name in by) for row in rows))
    means: list[Row] = []
    for group in groups:
        place = dict(zip(by, group, strict=True))
        mean: Row = {**place, "seeds": len(_values(rows, place, names[0]))}
        for name in names:
            values = _values(rows, place, name)
            error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
            mean |= {name: fmean(values), f"{name}_se": error}
        means.append(mean)
    return means


def welch_tests(seeds: Sequence[Row], model: str = "DiffEnc") -> list[Row]:
    """Whether this model's bpd is lower than each other one's, by split: one-sided, unequal variances, over seeds.

    p is None where there are fewer than two seeds.
    """
    from scipy.stats import ttest_ind

    rows: list[Row] = []
    for split in distinct(seeds, "split"):
        bpd = {name: _values(seeds, {"split": split, "model": name}, "bpd") for name in distinct(seeds, "model")}
        for other in (name for name in bpd if name != model):
            row: Row = {"split": split, "hypothesis": f"{model} < {other}"}
            row |= {"difference": fmean(bpd[model]) - fmean(bpd[other]), "t": None, "p": None}
            if len(bpd[model]) > 1:
                found = ttest_ind(bpd[model], bpd[other], equal_var=False, alternative="less")
                row |= {"t": float(found.statistic), "p": float(found.pvalue)}
            rows.append(row)
    return rows


def _values(rows: Sequence[Row], place: Row, name: str) -> list[float]:
    return [row[name] for row in rows if place.items() <= row.items()]


def printed_model(mean: Row) -> Row:
    """A row of :func:`model_means` as the terminal shows it."""
    row: Row = {"split": mean["split"], "model": mean["model"]}
    row |= {"recon.": f"{mean['reconstruction']:.4f}", "latent": f"{mean['latent']:.4f}"}
    return row | {name: _with_error(mean, name) for name in ("diffusion", "bpd")}


def printed_gain(mean: Row) -> Row:
    """A row of :func:`gain_means` as the terminal shows it."""
    row = {"model": mean["model"], "T": mean["T"], "bpd": f"{mean['bpd_one']:.4f}"}
    return row | {name.removeprefix("gain_"): _with_error(mean, name) for name in GAINS}


def _with_error(mean: Row, name: str) -> str:
    error = mean[f"{name}_se"]
    return f"{mean[name]:.4f}" + ("" if error is None else f" ±{error:.4f}")


@in_style()
def draw_models(seeds: Sequence[Row]) -> Figure:
    """A panel for each split: a dot for each seed, and for each model the mean and its standard error over seeds."""
    caption = (
        "Which model has the lower bound: a faint dot for each seed, beside them mean and standard error over seeds."
    )
    figure = blank(PAGE, 2.6, caption)
    for axes, (split, title) in zip(figure.subplots(1, len(SPLITS)), SPLITS.items(), strict=True):
        _models_panel(axes, [row for row in seeds if row["split"] == split])
        axes.set_title(title)
    figure.axes[0].set_ylabel("negative ELBO (bits/dim)")
    return figure


def _models_panel(axes: Axes, seeds: Sequence[Row]) -> None:
    models = grouped(seeds, "model")
    for place, rows in enumerate(models.values()):
        values = np.array([row["bpd"] for row in rows])
        axes.scatter(np.full(len(values), place - 0.12), values, s=10, color=PALETTE[place], alpha=0.5, linewidths=0)
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None
        axes.errorbar(place + 0.12, values.mean(), error, fmt="o", color=PALETTE[place])
    axes.set_xticks(range(len(models)), models)
    axes.set_xlim(-0.5, len(models) - 0.5)
    axes.margins(y=0.15)


@in_style()
def draw_gains(means: Sequence[Row]) -> Figure:
    """Gains over ratio 1 in T steps: measured against predicted, and what is left of the prediction by T."""
    caption = (
        "What fitted variances of the generative steps gain over equal ones, against what theory predicts for many "
        "steps: on the dotted line it is right."
    )
    figure = blank(PAGE, 2.8, caption)
    measured, share = figure.subplots(1, 2)
    # A line for each model and kind of ratio, in both panels.
    for index, (model, own) in enumerate(grouped(means, "model").items()):
        for offset, (kind, label) in enumerate(KINDS.items()):
            style = {"color": PALETTE[index], "marker": MARKERS[offset], "lw": 1.0}
            style |= {"mfc": "none" if offset else PALETTE[index], "ls": "--" if offset else "-"}
            predicted, gained = (np.array([row[name] for row in own]) for name in ("gain_predicted", f"gain_{kind}"))
            measured.plot(predicted, gained, label=f"{model}, {label}", **style)
            share.plot([row["T"] for row in own], gained / predicted, **style)
    # On the diagonal the prediction, the limit of large T, holds.
    depths = sorted({row["T"] for row in means})
    ends = [fmean(row["gain_predicted"] for row in means if row["T"] == depth) for depth in (depths[0], depths[-1])]
    measured.plot(ends, ends, color=REFERENCE, lw=0.8, ls=":")
    measured.set(
        xscale="log",
        yscale="log",
        xlabel="gain predicted (bits/dim)",
        ylabel="gain measured (bits/dim)",
    )
    share.axhline(1, color=REFERENCE, lw=0.8, ls=":")
    share.set(xscale="log", yscale="log", xlabel="depth $T$ (steps)", ylabel="gain measured / predicted")
    share.set_xticks(depths, [str(depth) for depth in depths])
    share.set_xticks([], minor=True)
    share.yaxis.set_major_formatter("{x:g}")
    measured.xaxis.set_minor_formatter("")
    measured.legend()
    return figure
