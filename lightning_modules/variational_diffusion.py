"""VDM: a variational diffusion model whose mean is the data at every depth."""

from collections.abc import Sequence

from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable

from lightning_modules.diffusion_module import DiffusionModule, RatioFactory, ScheduleFactory, ScoreFactory
from lightning_modules.hyperparameters import save_hyperparameters
from lightning_modules.optimization import DiffusionAdamW, LinearWarmup
from likeness.diffusion.elbo import Prediction
from likeness.diffusion.encoders import IdentityEncoder
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.schedules import LinearSchedule
from likeness.networks.score_unet import ScoreUNet
from likeness.seeding import mix, seeded


class VariationalDiffusion(DiffusionModule):
    """Kingma et al. 2021 (arXiv 2107.00630), in the v-prediction of Nielsen et al. 2024 (arXiv 2310.19789).

    Args:
        input_shape: shape of one sample as the datamodule stores it, without the batch dimension.
        levels: grey levels of the data.
        network: the score network, a class or factory called with (input_shape, gamma_min, gamma_max, num_labels).
        schedule: the noise schedule, a class or factory.
        prediction: what the network predicts.
        num_steps: T; none is infinite depth.
        ratio: of the variances in finite depth, a class or factory; none is 1.
        class_conditional: give the network the labels.
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
        schedule: ScheduleFactory = LinearSchedule,
        prediction: Prediction = "v",
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
        with seeded(mix(seed)):
            noise = schedule()
            score = network(input_shape, noise.gamma_min, noise.gamma_max, labels)
            diffusion = DiffusionModel(
                score,
                IdentityEncoder(),
                noise,
                input_shape,
                levels,
                prediction,
                num_steps=num_steps,
                ratio=None if ratio is None else ratio(),
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


def required_labels(class_conditional: bool, num_classes: int | None) -> int | None:
    """How many labels the network is to know; raises ValueError where they are wanted and unknown."""
    if not class_conditional:
        return None
    if num_classes is None or num_classes < 1:
        raise ValueError(f"class_conditional needs num_classes, got {num_classes}")
    return num_classes
