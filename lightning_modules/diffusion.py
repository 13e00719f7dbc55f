"""What variational diffusion models train and evaluate: VDM, whose mean is the data at every depth, and DiffEnc."""

from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from typing_extensions import override

from lightning_modules.hyperparameters import plain_factory, save_hyperparameters
from lightning_modules.metrics import BoundMetric
from lightning_modules.optimization import (
    DiffusionAdamW,
    LinearWarmup,
    optimization,
    step_seed,
    without_decay_of_biases,
)
from likeness.batch import Batch
from likeness.checks import require_labels, require_positive
from likeness.diffusion.elbo import AnyTerms, Prediction, bits_per_dim, mapped
from likeness.diffusion.encoders import DepthEncoder, IdentityEncoder, ParameterFreeEncoder, TrainableEncoder
from likeness.diffusion.model import Basis, Context, DiffusionModel
from likeness.diffusion.process import Noise, evaluation_noise, training_noise
from likeness.diffusion.schedules import LinearSchedule, MonotoneSchedule, NoiseSchedule
from likeness.diffusion.times import AdaptiveDensity, TimeDensity
from likeness.diffusion.variance_ratio import VarianceRatio
from likeness.diffusion.volatility import Volatility
from likeness.networks.encoder_networks import EncoderUNet
from likeness.networks.score_networks import ScoreUNet
from likeness.seeding import mix, seeded

NetworkFactory = Callable[[Sequence[int], float, float, int | None], nn.Module]
ScheduleFactory = Callable[[], NoiseSchedule]
RatioFactory = Callable[[], VarianceRatio]
VolatilityFactory = Callable[[], Volatility]
TimesFactory = Callable[[], TimeDensity]
BasisFactory = Callable[[], Basis]
ContextFactory = Callable[[Sequence[int]], Context]
MONITOR = "val/bpd"


class VariationalDiffusion(pl.LightningModule):
    """VDM, trained on the batch mean of its negative ELBO in bits per dimension.

    Kingma et al. 2021 (arXiv 2107.00630), in the v-prediction of Nielsen et al. 2024 (arXiv 2310.19789). Times and
    noise of a training sample are a function of (seed, batch of the run, place in the global batch); those of an
    evaluated sample of (seed, its id, draw).

    Args:
        input_shape: shape of one sample as the datamodule stores it, without the batch dimension.
        levels: grey levels of the data.
        network: the score network, a class or factory called with (input_shape, gamma_min, gamma_max, num_labels).
        schedule: the noise schedule, a class or factory; a multivariate one is told ``input_shape``.
        prediction: what the network predicts.
        num_steps: T; none is infinite depth.
        ratio: of the variances in finite depth, a class or factory; none is 1.
        volatility: how much of the noise is new at each depth, a class or factory; none is 1.
        context: what is drawn before z_1 and told the network and the schedule, a class or factory called with
            (input_shape); none is nothing.
        basis: orthonormal, in which the latent variables live, a class or factory; none is pixels.
        flow_head: have a second network like the first from which the probability flow is taken, for encoders whose
            flow is unknown; it is trained beside the bound, which does not depend on it.
        times: the density from which the times of the diffusion term are drawn, a class or factory; none is uniform.
        class_conditional: give the networks the labels.
        num_classes: how many labels there are.
        optimizer: an optimiser class or factory called with groups of parameters; weight decay spares biases.
        scheduler: a scheduler class or factory called with the optimiser; its lengths are in steps.
        ratio_lr: learning rate of the ratio, which has no weight decay.
        volatility_lr: learning rate of the volatility, which has no weight decay.
        schedule_lr: learning rate of a multivariate schedule, which has no weight decay. Other schedules have the rate
            and the decay of the networks.
        eval_draws: how many times the noise of each evaluated sample is drawn; from two on there is a standard error
            over draws.
        compiled: compile the loss, as one piece; as several with a schedule of ``minimise_variance``. On the CPU masks
            of dropout are then of the compiler's own.
        channels_last: keep images and weights with the channels innermost, which is faster on most machines.
        seed: decides the first weights, times, noise, dropout and, unless ``order_seed`` does, the order of the data.
        order_seed: decides the order of the data.
    """

    counter_term = False  # whether the generative steps model how the mean changes
    plug_in = False  # whether they take that from the encoder, applied to the prediction
    lean = False  # whether training leaves passes of the encoder out

    def __init__(
        self,
        input_shape: Sequence[int],
        levels: int,
        network: NetworkFactory = ScoreUNet,
        schedule: ScheduleFactory = LinearSchedule,
        prediction: Prediction = "v",
        num_steps: int | None = None,
        ratio: RatioFactory | None = None,
        volatility: VolatilityFactory | None = None,
        context: ContextFactory | None = None,
        basis: BasisFactory | None = None,
        flow_head: bool = False,
        times: TimesFactory | None = None,
        class_conditional: bool = False,
        num_classes: int | None = None,
        optimizer: OptimizerCallable = DiffusionAdamW,
        scheduler: LRSchedulerCallable | None = LinearWarmup,
        ratio_lr: float = 1e-3,
        volatility_lr: float = 1e-3,
        schedule_lr: float = 2e-4,
        eval_draws: int = 1,
        compiled: bool = False,
        channels_last: bool = True,
        seed: int = 0,
        order_seed: int | None = None,
    ) -> None:
        super().__init__()
        save_hyperparameters(self)
        require_positive(eval_draws=eval_draws)
        if class_conditional and (num_classes is None or num_classes < 1):
            raise ValueError(f"class_conditional needs num_classes, got {num_classes}")
        with seeded(mix(seed)):  # the score network first, so that it starts alike with every encoder
            noise = schedule()
            sizes = (input_shape, noise.gamma_min, noise.gamma_max, num_classes if class_conditional else None)
            score, encoder = network(*sizes), self._build_encoder(*sizes)
            variances = None if ratio is None else ratio()
            volatilities = None if volatility is None else volatility()
            noise.for_samples(input_shape)
            drawn = None if context is None else context(input_shape)
            head = network(*sizes) if flow_head else None
        axes = None if basis is None else basis()
        options = (prediction, self.counter_term, num_steps, variances, volatilities, self.plug_in, drawn, axes, head)
        model = DiffusionModel(score, encoder, noise, input_shape, levels, *options)
        # only the layout: the results are the same, and on most machines this one is faster
        self.diffusion = model.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        self._optimizer, self._scheduler = plain_factory(optimizer), plain_factory(scheduler)
        self.times = None if times is None else times()
        if self.times is not None:
            self.times.for_schedule(noise)
        _require_one_density(self.times, noise, num_steps)
        self.ratio_lr, self.volatility_lr, self.schedule_lr = ratio_lr, volatility_lr, schedule_lr
        self.class_conditional, self.eval_draws, self.compiled = class_conditional, eval_draws, compiled
        self.num_labels = num_classes if class_conditional else None
        self.seed = seed
        self.order_seeds: Sequence[int] = (seed if order_seed is None else order_seed,)
        self.val_bound, self.test_bound = (BoundMetric(eval_draws, model.terms_kind) for _ in range(2))
        self._terms: Callable[..., AnyTerms] | None = None

    def _build_encoder(
        self, input_shape: Sequence[int], gamma_min: float, gamma_max: float, num_labels: int | None
    ) -> DepthEncoder:
        """The encoder of the mean, at its first weights."""
        return IdentityEncoder()

    def elbo_terms(
        self,
        images: Tensor,
        *,
        t: Tensor,
        eps_0: Tensor,
        eps: Tensor,
        weight: Tensor | None = None,
        eps_context: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> AnyTerms:
        """Reconstruction, latent and diffusion loss of grey levels [B, ...] in nats, [B] each, with every term exact.

        With a context its KL too. See :meth:`likeness.diffusion.model.DiffusionModel.elbo_terms`.
        """
        options = {"weight": weight, "eps_context": eps_context, "labels": labels}
        return self.diffusion.elbo_terms(images, t=t, eps_0=eps_0, eps=eps, **options)

    def encode(self, images: Tensor, t: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """The encoder's mean x_t, [B, ...], of grey levels at time t, one for all or [B]."""
        x = self.diffusion.scale(images)
        return self.diffusion.pixels(self.diffusion.for_data(x)[0].mean(x, self._times(x, t), labels))

    def embed(self, x: Tensor, t: float | Tensor = 0.5, labels: Tensor | None = None) -> Tensor:
        """Middle features of the score network at the encoder's mean at time t, without noise, [B, M]."""
        times = self._times(x, t)
        given, _ = self.diffusion.for_data(self.diffusion.scale(x, times.dtype))
        return given.features(x, times, labels)

    @property
    def float_type(self) -> torch.dtype:
        """Of the weights."""
        return next(self.diffusion.parameters()).dtype

    def configure_optimizers(self) -> Any:
        schedule = self.diffusion.schedule if self.diffusion.schedule.multivariate else None
        parts = [self.diffusion.ratio, self.diffusion.volatility, schedule]
        rates = zip(parts, [self.ratio_lr, self.volatility_lr, self.schedule_lr], strict=True)
        groups = without_decay_of_biases(self.diffusion, [(part, rate) for part, rate in rates if part is not None])
        return optimization(self._optimizer(groups), self._scheduler, MONITOR)

    def on_fit_start(self) -> None:
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(self.times, AdaptiveDensity) and getattr(callback, "_use_buffers", False):
                name = type(callback).__name__
                raise ValueError(f"{name} would average what AdaptiveDensity counts: set its use_buffers to false")

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        torch.manual_seed(step_seed(self, self.seed))  # dropout

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        if self.num_labels is not None:  # compiled code could not say which
            require_labels(batch.y, self.num_labels, wait=batch_idx == 0)
        step = self.trainer.fit_loop.total_batch_idx
        like = self._like(batch.x)
        place = (self.seed, step, self.global_rank, self.trainer.world_size)
        drawn = training_noise(like, *place, context_size=self.diffusion.context_size)
        noise = drawn.at_times_of(self.times)
        terms = self._training_terms()(batch.x, **noise._asdict(), labels=self._labels(batch), lean=self.lean)
        dims = batch.x[0].numel()
        loss = bits_per_dim(terms.total, dims)
        schedule = self.diffusion.schedule
        if isinstance(schedule, MonotoneSchedule) and schedule.minimise_variance:
            schedule.weigh_gradient(bits_per_dim(terms.diffusion, dims))
        self.log("train/loss", loss.mean(), prog_bar=True, sync_dist=True)
        objective = loss.mean()
        if self.diffusion.flow_head is not None:
            matching = bits_per_dim(self._flow_matching_loss(batch, noise), dims).mean()
            self.log("train/flow_matching", matching, sync_dist=True)
            objective = objective + matching
        found = mapped(Tensor.detach, terms)
        rate = _unweighted(found.diffusion, noise)
        if self.times is not None:
            self.times.observe(noise.t, rate / dims)
        return {"loss": objective, "terms": found, "t": noise.t, "rate": rate}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        return self._evaluate(batch, self.val_bound)

    def on_validation_epoch_end(self) -> None:
        self._log_bound("val", self.val_bound)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        return self._evaluate(batch, self.test_bound)

    def on_test_epoch_end(self) -> None:
        self._log_bound("test", self.test_bound)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        noises = (self._evaluation_noise(batch, draw) for draw in range(self.eval_draws))
        nats = torch.stack([self._noisy_terms(batch, noise).total for noise in noises])
        bpd = bits_per_dim(nats.mean(0), batch.x[0].numel())
        return {"id": batch.id, "bpd": bpd, "representations": self.embed(batch.x, labels=self._labels(batch))}

    def _training_terms(self) -> Callable[..., AnyTerms]:
        """Made at the first step: a compiled function cannot be copied, and weight averaging copies the module."""
        if self._terms is None:
            terms = self.diffusion.elbo_terms
            # the outer function: compiled networks under a derivative lose their tangents
            self._terms = torch.compile(terms) if self.compiled else terms
        return self._terms

    def _flow_matching_loss(self, batch: Batch, noise: Noise) -> Tensor:
        from likeness.diffusion.flow import flow_matching_loss  # the bound needs nothing of it

        x = self.diffusion.scale(batch.x, self.float_type)
        with torch.no_grad():
            given, _ = self.diffusion.for_data(x, noise.eps_context)
        loss = flow_matching_loss(given, x, noise.t, noise.eps, self._labels(batch))
        return loss if noise.weight is None else noise.weight * loss

    def _evaluate(self, batch: Batch, bound: BoundMetric) -> dict[str, Any]:
        """Add the batch to the bound; what callbacks read, of K draws, is nats and times, [K, B] each.

        ``rate`` is the diffusion loss at each time, of which the diffusion term may be a weighted one.
        """
        noises = [self._evaluation_noise(batch, draw) for draw in range(self.eval_draws)]
        drawn = [self._noisy_terms(batch, noise) for noise in noises]
        terms = type(drawn[0])(*map(torch.stack, zip(*drawn, strict=True)))
        bound.update(terms, batch.x[0].numel())
        rate = torch.stack([_unweighted(one.diffusion, noise) for one, noise in zip(drawn, noises, strict=True)])
        return {"terms": terms, "t": torch.stack([noise.t for noise in noises]), "rate": rate}

    def _noisy_terms(self, batch: Batch, noise: Noise) -> AnyTerms:
        return self.diffusion.elbo_terms(batch.x, **noise._asdict(), labels=self._labels(batch))

    def _evaluation_noise(self, batch: Batch, draw: int) -> Noise:
        like, size = self._like(batch.x), self.diffusion.context_size
        return evaluation_noise(like, batch.id, self.seed, draw, size).at_times_of(self.times)

    def _log_bound(self, split: str, bound: BoundMetric) -> None:
        found = bound.compute()
        bound.reset()
        for name in (*bound.quantities, "bpd_sample_se", "bpd_draw_se"):  # an error is left out where it is not defined
            if name in found:
                self.log(f"{split}/{name}", found[name].float(), prog_bar=name == "bpd")

    def _labels(self, batch: Batch) -> Tensor | None:
        return batch.y if self.class_conditional else None

    def _like(self, images: Tensor) -> Tensor:
        return torch.empty(images.shape, dtype=self.float_type, device=self.device)

    def _times(self, like: Tensor, t: float | Tensor) -> Tensor:
        return torch.as_tensor(t, dtype=self.float_type, device=self.device).expand(len(like))


def _unweighted(diffusion: Tensor, noise: Noise) -> Tensor:
    return diffusion if noise.weight is None else diffusion / noise.weight


def _require_one_density(times: TimeDensity | None, schedule: NoiseSchedule, num_steps: int | None) -> None:
    """Raise ValueError where two options would choose the density of the times, or bins would cut steps."""
    if times is None:
        return
    if isinstance(schedule, MonotoneSchedule) and schedule.minimise_variance:
        name = type(times).__name__
        raise ValueError(f"times ({name}) and a schedule's minimise_variance both say where times fall: leave one out")
    if isinstance(times, AdaptiveDensity) and num_steps is not None and num_steps % times.num_bins:
        raise ValueError(f"times.num_bins must divide num_steps={num_steps}, got num_bins={times.num_bins}")


class DiffEnc(VariationalDiffusion):
    """Nielsen et al. 2024 (arXiv 2310.19789): x_t = alpha^2 x + sigma^2 y(x, t) with a trained y, or with none.

    Args:
        input_shape: shape of one sample as the datamodule stores it, without the batch dimension.
        levels: grey levels of the data.
        network: the score network, a class or factory called with (input_shape, gamma_min, gamma_max, num_labels).
        encoder: y, a class or factory called with the same; none is the encoder without parameters (DiffEnc-nt).
        counter_term: whether the generative steps model how the mean changes, by sigma^2 times the prediction; none
            is as ``plug_in`` is not.
        plug_in: whether they take that from y itself, applied to the prediction, in place of the counter-term.
        lean: train with fewer passes of the encoder: it is skipped at gamma_0, and the latent term is taken of a
            quarter of the batch. Evaluation is always exact.
        options: the other arguments of :class:`VariationalDiffusion`.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        levels: int,
        network: NetworkFactory = ScoreUNet,
        encoder: NetworkFactory | None = EncoderUNet,
        counter_term: bool | None = None,
        plug_in: bool = False,
        lean: bool = False,
        **options: Any,
    ) -> None:
        self._encoder = plain_factory(encoder)  # before the model is built of it
        self.counter_term = not plug_in if counter_term is None else counter_term
        self.plug_in, self.lean = plug_in, lean
        super().__init__(input_shape, levels, network, **options)

    @override
    def _build_encoder(
        self, input_shape: Sequence[int], gamma_min: float, gamma_max: float, num_labels: int | None
    ) -> DepthEncoder:
        if self._encoder is None:
            return ParameterFreeEncoder()
        return TrainableEncoder(self._encoder(input_shape, gamma_min, gamma_max, num_labels))
