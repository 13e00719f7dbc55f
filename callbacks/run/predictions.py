"""The predictions of a model as one file, each sample once, whichever process has made it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from callbacks.measure_at_validation import may_write
from callbacks.run.run_files import PREDICTIONS, note
from likeness.distributed import num_ranks
from likeness.files.writing import replacing
from likeness.protocols import Siblings

LABELS = {"y": "labels", "score": "scores"}  # of a batch, by what they are called in the file


class WritePredictions(Callback):
    """Writes ``predictions.npz`` into the run directory after ``predict``: one NumPy array for each quantity.

    N samples of the test split, in the order of their ``id`` [N]; ``labels`` [N], the tokens [N, T] that follow, or the
    ``scores`` of pairs; and all that the model's ``predict_step`` answers: of a classifier ``log_probs`` [N, K] in nats
    and ``representations`` [N, M], of a language model ``nll`` [N, T] in nats, of P siblings [P, N, K], [P, N, M] and
    [P, N, T], of a diffusion model ``bpd`` [N] and ``representations``, of a sentence encoder ``cosine`` [N].
    ``numpy.load`` reads it without executing anything. A model whose ``predict_step`` answers anything but a dict with
    ``id`` in it has no such file, and that is said.
    """

    def __init__(self) -> None:
        self._batches: list[dict[str, Tensor]] = []

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._batches = []
        trainer.predict_loop.return_predictions = False  # they are kept here

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not isinstance(outputs, Mapping) or "id" not in outputs:
            return
        answer = dict(outputs) | {name: getattr(batch, key) for key, name in LABELS.items() if hasattr(batch, key)}
        self._batches.append({name: _rows_first(name, value, pl_module).cpu() for name, value in answer.items()})

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        batches, self._batches = self._batches, []
        if not batches:
            rank_zero_warn(f"no {PREDICTIONS}: predict_step answers no dict of tensors with the id of each sample")
            return
        gathered = {name: _of_all_ranks(torch.cat([batch[name] for batch in batches]), trainer) for name in batches[0]}
        if not may_write(trainer):
            return
        first = _first_of_each(gathered["id"])
        arrays = {name: _rows_back(name, value[first], pl_module).numpy() for name, value in gathered.items()}
        with replacing(note(Path(trainer.default_root_dir, PREDICTIONS))) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)


def _of_all_ranks(rows: Tensor, trainer: pl.Trainer) -> Tensor:
    """The rows of every rank, which may differ in number, on the CPU."""
    if num_ranks() == 1:
        return rows
    return torch.cat([part.cpu() for part in gather_all_tensors(rows.to(trainer.strategy.root_device))])


def _first_of_each(ids: Tensor) -> Tensor:
    """Where each id stands first, in the order of the ids."""
    ordered, order = ids.sort(stable=True)
    return order[torch.cat([torch.ones(1, dtype=torch.bool), ordered[1:] != ordered[:-1]])]


def _is_of_members(name: str, value: Tensor, module: pl.LightningModule) -> bool:
    return isinstance(module, Siblings) and name in ("log_probs", "representations", "nll") and value.ndim == 3


def _rows_first(name: str, value: Tensor, module: pl.LightningModule) -> Tensor:
    value = value.detach().float() if value.dtype in (torch.bfloat16, torch.float16) else value.detach()
    return value.transpose(0, 1).contiguous() if _is_of_members(name, value, module) else value


def _rows_back(name: str, value: Tensor, module: pl.LightningModule) -> Tensor:
    return value.transpose(0, 1).contiguous() if _is_of_members(name, value, module) else value
