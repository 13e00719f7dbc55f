"""DiffEnc: a variational diffusion model with a depth-dependent encoder of the mean."""

from collections.abc import Callable, Sequence

from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from lightning_modules.diffusion_module import DiffusionModule, RatioFactory, ScheduleFactory, ScoreFactory
from lightning_modules.hyperparameters import save_hyperparameters
from lightning_modules.optimization import DiffusionAdamW, LinearWarmup
from lightning_modules.variational_diffusion import required_labels
from likeness.diffusion.elbo import Prediction
from likeness.diffusion.encoders import DepthEncoder, ParameterFreeEncoder, TrainableEncoder
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.schedules import LinearSchedule
from likeness.networks.encoder_unet import EncoderUNet
from likeness.networks.score_unet import ScoreUNet
from likeness.seeding import mix, seeded

EncoderFactory = Callable[[Sequence[int], float, float, int | None], nn.Module]


class DiffEnc(DiffusionModule):
    """Nielsen et al. 2024 (arXiv 2310.19789): x_t = alpha^2 x + sigma^2 y(x, t) with a trained y, or with none.

    Args:
        input_shape: shape of one sample as the datamodule stores it, without the batch dimension.
        levels: grey levels of the data.
        network: the score network, a class or factory called with (input_shape, gamma_min, gamma_max, num_labels).
        encoder: y, a class or factory called with the same; none is the encoder without parameters (DiffEnc-nt).
        schedule: the noise schedule, a class or factory.
        prediction: what the network predicts.
        counter_term: whether the generative steps model how the mean changes.
        lean: train with fewer passes of the encoder: it is skipped at gamma_0, and the latent term is taken of a
            quarter of the batch. Evaluation is always exact.
        num_steps: T; none is infinite depth.
        ratio: of the variances in finite depth, a class or factory; none is 1.
        class_conditional: give the networks the labels.
        num_classes: how many labels there are.
        optimizer: an optimiser class or factory called with groups of parameters; weight decay spares biases.
        scheduler: a scheduler class or factory called with the optimiser; its lengths are in steps.
        ratio_lr: learning rate of the ratio, which has no weight decay.
        eval_draws: how many times the noise of each evaluated sample is drawn; two or more give a standard error.
        compiled: compile the loss.
        channels_last: keep images and weights with the channels innermost, which is faster on most machines.
        seed: decides the first weights, times, noise, dropout and, unless ``order_seed`` does, the order of the data.
        order_seed: decides the order of the data.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        levels: int,
        network: ScoreFactory = ScoreUNet,
        encoder: EncoderFactory | None = EncoderUNet,
        schedule: ScheduleFactory = LinearSchedule,
        prediction: Prediction = "v",
        counter_term: bool = True,
        lean: bool = False,
        num_steps: int | None = None,
        ratio: RatioFactory | None = None,
        class_conditional: bool = False,
        num_classes: int | None = None,
        optimizer: OptimizerCallable = DiffusionAdamW,
        scheduler: LRSchedulerCallable | None = LinearWarmup,
        ratio_lr: float = 1e-3,
        eval_draws: int = 1,
        compiled: bool = False,
        channels_last: bool = True,
        seed: int = 0,
        order_seed: int | None = None,
    ) -> None:
        super().__init__()
        save_hyperparameters(self)
        labels = required_labels(class_conditional, num_classes)
        with seeded(mix(seed)):  # the score network first, so that it starts as VDM's does
            noise = schedule()
            score = network(input_shape, noise.gamma_min, noise.gamma_max, labels)
            mean: DepthEncoder = ParameterFreeEncoder()
            if encoder is not None:
                mean = TrainableEncoder(encoder(input_shape, noise.gamma_min, noise.gamma_max, labels))
            diffusion = DiffusionModel(
                score,
                mean,
                noise,
                input_shape,
                levels,
                prediction,
                counter_term,
                num_steps,
                None if ratio is None else ratio(),
            )
        self._prepare(
            diffusion,
            optimizer,
            scheduler,
            ratio_lr,
            class_conditional,
            eval_draws,
            compiled,
            channels_last,
            seed,
            order_seed,
        )
        self.lean = lean
