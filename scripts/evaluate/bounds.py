"""A diffusion model's bounds on a split, in bits per dimension, and those of models that know next to nothing.

A bound is taken at a depth: T steps, a ratio of the variances and a volatility.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_modules.diffusion import VariationalDiffusion
from likeness.batch import Batch
from likeness.diffusion.dequantisation import LearnedDequantisation, centred, fit_dequantisation
from likeness.diffusion.diagnostics.baselines import LevelHistogram, uniform_bits
from likeness.diffusion.elbo import bits_per_dim
from likeness.diffusion.fitting import fit_ratio, fit_volatility, require_fittable
from likeness.diffusion.likelihoods import dequantised_bound, flow_bound, log_weight
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import Noise, evaluation_noise
from likeness.diffusion.variance_ratio import VarianceRatio
from likeness.diffusion.volatility import Volatility
from likeness.seeding import generator
from scripts.evaluate.data import EvaluatedSplit
from scripts.reporting import Row

VarianceName = Literal["one", "learned", "fitted"]
Trace = Literal["exact", "hutchinson"]
FIT_BATCH = 128
TOLERANCE = 1e-5  # of the solver of the probability flow
_FIT, _IMPORTANCE = 0xF17, 0x1B0  # set these streams apart from each other and from other uses of the same seed


class Depth(NamedTuple):
    """T steps, None for infinitely many, and which ratio of the variances and which volatility they have."""

    num_steps: int | None
    ratio: VarianceName
    volatility: VarianceName = "one"

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


def choose_depths(
    model: DiffusionModel,
    steps: Sequence[int | None],
    ratio: VarianceName | None,
    volatility: VarianceName | None = None,
) -> list[Depth]:
    """The depths to evaluate; where no ratio is named it is the model's own, and 1 in infinite depth.

    Raises ValueError for a learned ratio or volatility that the model has not, and for any ratio but 1 in infinite
    depth.
    """
    if volatility == "learned" and model.volatility is None:
        raise ValueError("--volatility learned: the model has none, it was trained with 1; fitted takes no training")
    if ratio == "learned" and model.ratio is None:
        raise ValueError("--ratio learned: the model has no ratio, it was trained with variances of ratio 1")
    if ratio not in (None, "one") and None in steps:
        raise ValueError(f"--ratio {ratio} needs finite --steps: at T = inf any variance ratio but 1 costs infinity")
    if volatility == "fitted":
        for number in steps:
            require_fittable(model, number)
    own: VarianceName = "one" if model.ratio is None else "learned"
    volatile: VarianceName = volatility or ("one" if model.volatility is None else "learned")
    return [Depth(number, ratio or ("one" if number is None else own), volatile) for number in steps]


@contextmanager
def at_depth(
    model: DiffusionModel, num_steps: int | None, ratio: VarianceRatio | None, volatility: Volatility | None
) -> Iterator[None]:
    """The model in another depth, with another ratio and volatility, and afterwards as it was."""
    before = model.num_steps, model.ratio, model.volatility
    try:
        set_depth(model, num_steps, ratio, volatility)
        yield
    finally:
        set_depth(model, *before)


def set_depth(
    model: DiffusionModel, num_steps: int | None, ratio: VarianceRatio | None, volatility: Volatility | None
) -> None:
    """Give the model another depth, ratio and volatility."""
    model.ratio = None  # which goes with any number of steps
    model.num_steps, model.ratio, model.volatility = num_steps, ratio, volatility


@dataclass(frozen=True)
class BoundEvaluation:
    """Bounds of one model on one split, averaged over ``draws`` of the noise, with two standard errors.

    ``bpd_sample_se`` is over samples, each averaged over its draws: how far the mean is from that of all data there
    could be. ``bpd_draw_se`` is over draws: how far it is from the mean of these samples over endlessly many draws.
    The noise of a sample is a function of (seed, its id, draw), so that no bound depends on the batch size.
    """

    module: VariationalDiffusion  # in evaluation mode
    split: EvaluatedSplit
    train: EvaluatedSplit  # on which ratios, volatilities and dequantisations are fitted
    draws: int
    seed: int
    _fitted: dict[Depth, tuple[VarianceRatio | None, Volatility | None]] = field(default_factory=dict, init=False)

    def elbo(self, depth: Depth, *, uniform: bool = False) -> Row:
        """The ELBO and its terms, at times of the module's own density or at ``uniform`` ones."""
        terms = self.elbo_bits(depth, uniform=uniform)
        means = zip(self.module.diffusion.terms_kind._fields, terms.mean((0, 2)).tolist(), strict=True)
        return _row("ELBO, uniform times" if uniform else "ELBO", depth) | _estimate(terms.sum(1)) | dict(means)

    @torch.no_grad()
    def elbo_bits(self, depth: Depth, *, uniform: bool = False) -> Tensor:
        """The terms of each draw and sample in bits per dimension, [draws, terms, N] in float64."""

        def nats(batch: Batch, draw: int) -> Tensor:
            noise = self._noise(batch, draw).at_times_of(None if uniform else self.module.times)._asdict()
            return torch.stack(tuple(self.module.elbo_terms(batch.x, **noise, labels=self._labels(batch))))

        with self._at(depth):
            return self._bits(nats, f"ELBO, T = {depth.label}")

    @torch.no_grad()
    def importance_weighted(self, depth: Depth, num_samples: int) -> Row:
        """The bound of this many weighted paths for each sample: each path takes T passes of the network."""

        def nats(batch: Batch, draw: int) -> Tensor:
            return torch.stack([self._weighted(batch, row, draw, num_samples) for row in range(len(batch.id))])

        with self._at(depth):
            bits = self._bits(nats, f"{num_samples} weighted paths, T = {depth.label}")
        return _row(f"IW, k = {num_samples}", depth) | _estimate(bits)

    def probability_flow(self, trace: Trace) -> Row:
        """The bound with the density of the probability flow and the decoder of the diffusion model."""

        def nats(batch: Batch, draw: int, tolerance: float = TOLERANCE) -> Tensor:
            noise = self._noise(batch, draw)
            probe = noise.eps if trace == "hutchinson" else None
            options = (self._labels(batch), probe, tolerance, noise.eps_context)
            return flow_bound(self.module.diffusion, batch.x, noise.eps_0, *options)

        return {"bound": f"ODE, {trace} trace"} | self._solved(nats, "probability flow")

    def learn_dequantisation(self, num_steps: int) -> LearnedDequantisation:
        """The noise in the cells that suits the training data, in so many steps."""
        source = generator(self.seed, _FIT, 2, device=self.split.device)
        batches = self._training_batches("the dequantisation")
        return fit_dequantisation(self.module.diffusion, batches, source, num_steps)

    def dequantised_flow(self, trace: Trace, num_samples: int, learned: LearnedDequantisation | None) -> Row:
        """The bound with the mass of the flow's density in the cells of the grey levels, of so many draws in them.

        The noise in the cells is ``learned``, or truncated normal.
        """

        def nats(batch: Batch, draw: int, tolerance: float = TOLERANCE) -> Tensor:
            noises = [self._noise(batch, draw * num_samples + number) for number in range(num_samples)]
            probe = noises[0].eps if trace == "hutchinson" else None
            drawn = torch.stack([noise.eps_0 for noise in noises])
            contexts = [noise.eps_context for noise in noises if noise.eps_context is not None]
            options = (probe, tolerance, learned or centred, torch.stack(contexts) if contexts else None)
            return dequantised_bound(self.module.diffusion, batch.x, drawn, self._labels(batch), *options)

        kind = "ODE-VD" if learned else "ODE-TN"
        name = kind if num_samples == 1 else f"{kind}, k = {num_samples}"
        how = f"{trace} trace" if trace == "exact" or num_samples == 1 else "one probe, no strict bound"
        return {"bound": f"{name}, {how}"} | self._solved(nats, name)

    def _solved(self, nats: Callable[..., Tensor], description: str) -> Row:
        """An estimate by the solver of an ODE, and how far a tenth of its tolerance moves that of the first batch."""
        row = _estimate(self._bits(nats, description))
        first = next(self.split.batches("solver"))
        loose, tight = (nats(first, 0, tolerance).double() for tolerance in (TOLERANCE, TOLERANCE / 10))
        return row | {"bpd_solver": float(bits_per_dim((loose - tight).mean().abs(), first.x[0].numel()))}

    def _weighted(self, batch: Batch, row: int, draw: int, num_samples: int) -> Tensor:
        """Of one sample, whose paths make a batch: their noise is then a function of the sample alone."""
        source = generator(self.seed, _IMPORTANCE, draw, int(batch.id[row]), device=batch.x.device)
        images = batch.x[row].expand(num_samples, *batch.x.shape[1:])
        labels = batch.y[row].expand(num_samples) if self.module.class_conditional else None
        weights = log_weight(self.module.diffusion, images, source, labels)
        return math.log(num_samples) - weights.logsumexp(0)

    def _bits(self, nats: Callable[[Batch, int], Tensor], description: str) -> Tensor:
        """Bits per dimension of each draw and sample, [draws, ..., N] in float64, of nats [..., B] of a batch."""
        parts = []
        for batch in self.split.batches(description):
            drawn = torch.stack([nats(batch, draw).cpu() for draw in range(self.draws)])
            parts.append(bits_per_dim(drawn.double(), batch.x[0].numel()))
        return torch.cat(parts, dim=-1)

    def variances(self, depth: Depth) -> tuple[VarianceRatio | None, Volatility | None]:
        """The ratio and the volatility that a depth names; what is fitted is fitted once."""
        if depth not in self._fitted:
            volatility = self._volatility(depth)
            self._fitted[depth] = self._ratio(depth, volatility), volatility
        return self._fitted[depth]

    def _at(self, depth: Depth) -> AbstractContextManager[None]:
        return at_depth(self.module.diffusion, depth.num_steps, *self.variances(depth))

    def _volatility(self, depth: Depth) -> Volatility | None:
        if depth.volatility != "fitted":
            return self.module.diffusion.volatility if depth.volatility == "learned" else None
        with at_depth(self.module.diffusion, depth.num_steps, None, None):
            source = generator(self.seed, _FIT, 1, device=self.split.device)
            batches = self._training_batches(f"the volatility, T = {depth.label}")
            return fit_volatility(self.module.diffusion, batches, source)

    def _ratio(self, depth: Depth, volatility: Volatility | None) -> VarianceRatio | None:
        if depth.ratio != "fitted":
            return self.module.diffusion.ratio if depth.ratio == "learned" else None
        with at_depth(self.module.diffusion, depth.num_steps, None, volatility):
            source = generator(self.seed, _FIT, device=self.split.device)
            batches = self._training_batches(f"the ratio, T = {depth.label}")
            return fit_ratio(self.module.diffusion, batches, source)

    def _training_batches(self, what: str) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Of one size, so that what is fitted does not depend on the batch size either."""
        for batch in replace(self.train, batch_size=FIT_BATCH).batches(f"fitting {what}"):
            yield batch.x, self._labels(batch)

    def _noise(self, batch: Batch, draw: int) -> Noise:
        like = torch.empty(batch.x.shape, dtype=self.module.diffusion.dtype, device=batch.x.device)
        return evaluation_noise(like, batch.id, self.seed, draw, self.module.diffusion.context_size)

    def _labels(self, batch: Batch) -> Tensor | None:
        return batch.y if self.module.class_conditional else None


def require_fit(module: VariationalDiffusion, name: str, split: EvaluatedSplit) -> None:
    """Raise ValueError naming both where the data's grey levels, shape or labels are not the model's."""
    model, data = module.diffusion, split.data
    if data.levels != model.levels:
        has = "real values" if data.levels is None else f"{data.levels} grey levels"
        raise ValueError(f"{name} models {model.levels} grey levels, but {data.dataset_name} has {has}")
    own, given = list(model.input_shape), list(data.input_shape)
    if len(own) != len(given) or own[0] != given[0]:  # networks take other heights and widths, or say so
        raise ValueError(f"{name} models samples of shape {own}, but {data.dataset_name}'s have {given}")
    classes = module.hparams.get("num_classes") if module.class_conditional else None
    if classes is not None and classes != data.num_classes:
        raise ValueError(f"{name} has {classes} labels, but {data.dataset_name} has {data.num_classes}")


def baselines(split: EvaluatedSplit, train: EvaluatedSplit) -> list[Row]:
    """Uniform grey levels, and the histogram of each dimension over the training split."""
    assert split.data.levels is not None
    histogram = LevelHistogram(split.data.input_shape, split.data.levels)
    for batch in train.batches("counting grey levels"):
        histogram.add(batch.x)
    bits = torch.cat([histogram.bits_per_dim(batch.x) for batch in split.batches("histogram")])
    return [
        {"bound": "uniform", "bpd": uniform_bits(split.data.levels)},
        {"bound": "histogram", "bpd": float(bits.mean())},
    ]


def _estimate(bits: Tensor) -> Row:
    """The mean of bits [draws, N], and its standard errors where there are two samples or more, and two draws."""
    draws, samples = bits.shape
    row: Row = {"bpd": float(bits.mean()), "bpd_sample_se": None, "bpd_draw_se": None}
    if samples > 1:
        row["bpd_sample_se"] = float(bits.mean(0).std() / math.sqrt(samples))
    if draws > 1:
        row["bpd_draw_se"] = float(bits.mean(1).std() / math.sqrt(draws))
    return row


def _row(bound: str, depth: Depth) -> Row:
    return {"bound": bound, "T": depth.label, "ratio": depth.ratio, "volatility": depth.volatility}
