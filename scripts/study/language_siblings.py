"""Sibling language models as they learn: trained in stages, and compared at the same held-out positions after each."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_modules.checkpoints import load_module
from likeness.files.tensors import open_safetensors
from likeness.files.writing import replacing
from likeness.language.answer import LanguageComparison
from likeness.language.comparison import compare_language_models
from likeness.language.loss import token_scores
from likeness.language.prediction_hubs import PredictionHubs, point_hubs, prediction_hubs
from likeness.language.reduced_predictions import reduced_predictions, split_documents
from likeness.numerics import threads_for
from likeness.progress import tracked
from likeness.seeding import hashed
from scripts.inputs import load_data
from scripts.reporting import Row, distinct, grouped
from scripts.study.training_run import TrainingRun, as_arguments, ensure_all_trained

EXPERIMENT = Path("configs/experiment/docstrings_lm.yaml")
REDUCTIONS = ("centre_f", "pmi_1")
COMPARED = (
    "kl",
    "agreement",
    "term_1",
    "certificate",
    "d_svd_typical",
    "max_d_svd",
    "m_cca_f",
    "m_cca_f_of_noise",
    "d_logit_weighted_normalised",
)
OF_ONE = (
    "nll",
    "k_skewness",
    "hubs",
    "spearman_hubs",
    "spearman_all",
    "zero_frequency_hubs",
    "gaussian_overlap",
    "accuracy",
    "accuracy_of_hubs",
    "accuracy_of_others",
    "tokens_k_skewness",
    "tokens_spearman",
)


@dataclass(frozen=True)
class Setting:
    """Every width with so many seeds, compared after each of these steps."""

    widths: Sequence[int]
    seeds: int
    measured: Sequence[int]

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise ValueError(f"seeds must be at least 2 for a pair, got {self.seeds}")
        if list(self.measured) != sorted(set(self.measured)) or not self.measured or self.measured[0] < 1:
            raise ValueError(f"measured steps must be positive and ascending, got {list(self.measured)}")


SMALL = Setting(widths=(16, 32), seeds=2, measured=(20, 60))


@dataclass(frozen=True)
class LanguageRun(TrainingRun):
    """A GPT-2 of the experiment on docstrings, of one width and seed, trained up to a step of ``length``."""

    width: int
    seed: int
    steps: int
    length: int  # steps of the whole schedule

    def __str__(self) -> str:
        return f"width {self.width}, seed {self.seed}, to step {self.steps} of {self.length}"

    def folder(self, out: Path) -> Path:
        return out / f"width{self.width}_seed{self.seed}"

    def threads(self) -> AbstractContextManager[None]:
        return threads_for(2048 * self.width)

    def arguments(self) -> list[str]:
        options: dict[str, Any] = {
            "seed_everything": self.seed,
            "model.init_args.network.init_args.width": self.width,
            "model.init_args.scheduler.init_args.steps": self.length,
            "trainer.limit_val_batches": 0,
        }
        return ["--config", str(EXPERIMENT), *as_arguments(options)]

    def settings(self) -> dict[str, Any]:
        return {"width": self.width, "seed": self.seed, "length": self.length}

    def settings_of(self, folder: Path, hparams: dict[str, Any]) -> dict[str, Any]:
        network, scheduler = (hparams.get(name, {}).get("init_args", {}) for name in ("network", "scheduler"))
        return {"width": network.get("width"), "seed": hparams.get("seed"), "length": scheduler.get("steps")}

    @property
    def name(self) -> str:
        """Of what is kept of the run at its step."""
        return f"width{self.width}_seed{self.seed}_step{self.steps}of{self.length}"


class HeldOut(NamedTuple):
    """A choice of positions, the same for all models."""

    x: Tensor  # [B, T] contexts
    rows: Tensor  # [N] of [B T]
    next: Tensor  # [N]
    document: Tensor  # [N]
    frequencies: Tensor  # [V], in the training text


class Found(NamedTuple):
    """All tables."""

    pairs: list[Row]
    models: list[Row]
    reduced: list[Row]
    means: list[Row]

    @property
    def reduced_means(self) -> list[Row]:
        """Over seeds, of each width and reduction."""
        rows = []
        for width, own in grouped(self.reduced, "width").items():
            for reduction, same in grouped(own, "reduction").items():
                mean = {name: _mean([row[name] for row in same]) for name in ("accuracy", "nll", "k_skewness")}
                rows.append({"width": width, "reduction": reduction} | mean)
        return rows


def measure_siblings(setting: Setting, out: Path, positions: int, device: str) -> Found:
    """Train and compare, stage by stage; what is in ``out`` already is read from there."""
    held_out: HeldOut | None = None
    pairs: list[Row] = []
    models: list[Row] = []
    reduced: list[Row] = []
    for stage in setting.measured:
        last = stage == setting.measured[-1]
        for width in setting.widths:
            runs = [LanguageRun(width, seed, stage, setting.measured[-1]) for seed in range(setting.seeds)]
            kept = out / f"{positions}positions"
            ensure_all_trained([run for run in runs if not _embeddings(run, kept).is_file()], out, device)
            held_out = held_out or hold_out(runs[0].folder(out), positions)
            tables = _once(
                kept / f"width{width}_step{stage}of{setting.measured[-1]}_{setting.seeds}seeds.json",
                partial(measure, runs, held_out, out, kept, last),
            )
            pairs, models, reduced = pairs + tables["pairs"], models + tables["models"], reduced + tables["reduced"]
    return Found(pairs, models, reduced, means(pairs, models))


def _once(path: Path, function: Callable[[], dict[str, list[Row]]]) -> dict[str, list[Row]]:
    """What a function answers, kept in a file for the next call."""
    if path.is_file():
        return dict(json.loads(path.read_text()))
    found = function()
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(found))
    return found


def hold_out(folder: Path, positions: int) -> HeldOut:
    """Positions of the validation text, those with the smallest hashes of their places."""
    data: Any = load_data(folder / "config.yaml")
    data.prepare_data()
    data.setup("fit")
    module: Any = load_module(folder)
    split, starts = data.splits["val"], data.files.documents("val")
    batch = split[torch.arange(len(split))]
    chosen = module.measured(batch)
    kept = hashed(chosen.ids).argsort()[:positions].sort().values
    rows, length = chosen.rows[kept], batch.x.shape[1]
    place = batch.id[rows // length] + rows % length
    document = torch.searchsorted(starts, place, right=True) - 1
    tokens = torch.from_numpy(data.files.file("train").ids.astype("int64"))
    return HeldOut(batch.x, rows, batch.y.flatten()[rows], document, torch.bincount(tokens, minlength=data.vocab_size))


def _embeddings(run: LanguageRun, kept: Path) -> Path:
    return kept / f"{run.name}.safetensors"


@torch.no_grad()
def embeddings(run: LanguageRun, held_out: HeldOut, out: Path, kept: Path) -> tuple[Tensor, Tensor]:
    """f [N, M] and g [V, M] of a run at its step, kept in a file: the next stage trains on."""
    from safetensors.torch import save_file

    path = _embeddings(run, kept)
    if not path.is_file():
        module: Any = load_module(run.folder(out)).eval()
        f = torch.cat([module.embed(x) for x in torch.split(held_out.x, 32)])[held_out.rows]
        with replacing(path) as temporary:
            save_file({"f": f.contiguous(), "g": module.unembeddings().detach().contiguous()}, temporary)
    file = open_safetensors(path)
    return file.get_tensor("f"), file.get_tensor("g")


def measure(runs: Sequence[LanguageRun], held_out: HeldOut, out: Path, kept: Path, last: bool) -> dict[str, list[Row]]:
    """Tables of the runs of one width and step: pairs, models and, of the last step, what reductions do."""
    heads = [embeddings(run, held_out, out, kept) for run in runs]
    models = [
        _place(run) | _of_one(f, g, held_out) for run, (f, g) in zip(runs, tracked(heads, "counting hubs"), strict=True)
    ]
    reduced = (
        [row for run, own in zip(runs, heads, strict=True) for row in _reduced(run, *own, held_out)] if last else []
    )
    pairs = []
    for a, b in tracked(list(combinations(range(len(runs)), 2)), "comparing"):
        found = compare_language_models(heads[a], heads[b], held_out.next, documents=held_out.document)
        place = {"width": runs[a].width, "step": runs[a].steps, "seed_a": runs[a].seed, "seed_b": runs[b].seed}
        pairs.append(place | _of_pair(found))
    return {"pairs": pairs, "models": models, "reduced": reduced}


def _place(run: LanguageRun) -> Row:
    return {"width": run.width, "step": run.steps, "seed": run.seed}


def _of_pair(found: LanguageComparison) -> Row:
    row: Row = {name: getattr(found, name) for name in COMPARED if name != "kl"}
    return {"kl": (found.kl_12 + found.kl_21) / 2} | row | {"ranks": min(found.ranks)}


def _of_one(f: Tensor, g: Tensor, held_out: HeldOut) -> Row:
    given = {"next_tokens": held_out.next, "frequencies": held_out.frequencies}
    hubs = prediction_hubs(f, g, nulls=("gaussian",), **given)  # type: ignore[arg-type]
    tokens = point_hubs(g, frequencies=held_out.frequencies)
    assert hubs.frequency is not None
    assert tokens.frequency is not None
    return {
        "nll": float(token_scores(f, g, held_out.next).nll.double().mean()),
        "k_skewness": hubs.report.k_skewness,
        "hubs": len(hubs.hubs),
        "spearman_hubs": hubs.frequency.spearman_hubs,
        "spearman_all": hubs.frequency.spearman_all,
        "zero_frequency_hubs": len(hubs.frequency.zero_frequency_hubs),
        "gaussian_overlap": hubs.overlap["gaussian"],
        **_accuracies(hubs),
        "tokens_k_skewness": tokens.report.k_skewness,
        "tokens_spearman": tokens.frequency.spearman_all,
    }


def _accuracies(hubs: PredictionHubs) -> Row:
    groups = {"all": "accuracy", "hub": "accuracy_of_hubs", "other": "accuracy_of_others"}
    return {name: hubs.accuracy[group].accuracy for group, name in groups.items()}


def _reduced(run: LanguageRun, f: Tensor, g: Tensor, held_out: HeldOut) -> list[Row]:
    bank, test = split_documents(held_out.document)
    found = reduced_predictions(f[bank], f[test], g, held_out.next[test], reductions=REDUCTIONS)
    return [
        _place(run)
        | {"reduction": one.name, "accuracy": one.accuracy, "nll": one.nll, "k_skewness": one.hubness.k_skewness}
        | {"p": None if one.against_none is None else one.against_none.p}
        for one in found
    ]


def means(pairs: Sequence[Row], models: Sequence[Row]) -> list[Row]:
    """A row for each width and step: means over models and over pairs, with errors of a jackknife over seeds."""
    rows = []
    for step in distinct(models, "step"):
        for width in distinct(models, "width"):
            place = {"width": width, "step": step}
            own_pairs, own = ([row for row in table if place.items() <= row.items()] for table in (pairs, models))
            seeds = [row["seed"] for row in own]
            row: Row = dict(place)
            for names, table, keys in ((OF_ONE, own, ("seed",)), (COMPARED, own_pairs, ("seed_a", "seed_b"))):
                for name in names:
                    row[name], row[f"{name}_se"] = _jackknife(table, name, keys, seeds)
            rows.append(row)
    return rows


def _jackknife(rows: Sequence[Row], name: str, keys: Sequence[str], seeds: Sequence[int]) -> tuple[Any, Any]:
    """The mean of a column and its standard error, from the means of the rows without each seed; None where undefined.

    Pairs share seeds, so that they are not independent.
    """
    mean = _mean([row[name] for row in rows])
    without = [_mean([row[name] for row in rows if seed not in [row[key] for key in keys]]) for seed in seeds]
    left = torch.tensor([value for value in without if value is not None], dtype=torch.float64)
    if mean is None or len(left) < len(seeds) or len(left) < 2:
        return mean, None
    return mean, float((left.var(correction=0) * (len(left) - 1)).sqrt())


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
