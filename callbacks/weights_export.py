"""The weights of a finished run as safetensors."""

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from callbacks.measure_at_validation import may_write
from lightning_modules.weights_file import WEIGHTS, save_weights


class ExportWeights(Callback):
    """Writes ``weights.safetensors`` into the run directory when training has ended; of an EMA, the averages.

    Every door that takes a checkpoint takes this file too.
    """

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # All ranks take part where they hold shards; a module may keep more than weights, such as a tokenizer.
        content = {"state_dict": trainer.strategy.lightning_module_state_dict()}
        pl_module.on_save_checkpoint(content)
        if may_write(trainer):
            save_weights(Path(trainer.default_root_dir, WEIGHTS), content, pl_module.hparams)
