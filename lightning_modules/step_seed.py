"""The randomness of a training step as a function of where the run stands."""

import pytorch_lightning as pl

from likeness.seeding import mix


def step_seed(module: pl.LightningModule, seed: int, rank: int | None = None) -> int:
    """A seed for this step, from ``seed``, the number of this batch in the whole run and the rank (this process's).

    Not from the epoch: ``current_epoch`` is one too high after Lightning resumes from the end
    of an epoch with max_steps set, or from one that max_steps cut short.
    """
    return mix(seed, module.trainer.fit_loop.total_batch_idx, module.global_rank if rank is None else rank)
