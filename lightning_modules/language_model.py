"""A language model p(y | x) = softmax_y f(x) . g(y): the next token y after a context x of tokens."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lightning_modules.hyperparameters import plain_factory, save_hyperparameters
from lightning_modules.metrics import TokenMetric
from lightning_modules.optimization import LanguageAdamW, optimization, step_seed, without_decay_of_vectors
from lightning_modules.sharding import ShardedDataParallel, shard, whole
from likeness.batch import Batch, Positions
from likeness.checks import require_labels, require_positive
from likeness.distributed import num_ranks, sum_over_ranks
from likeness.language.loss import IGNORED, token_scores
from likeness.language.sampling import sample_tokens
from likeness.networks.decoder import GPT2, Decoder
from likeness.networks.decoder_files import load_weights, read_settings, write_decoder
from likeness.seeding import hashed, mix, seeded

DecoderFactory = Callable[[int, int], Decoder]
LARGEST_HASH = 2**63 - 1


class LanguageModel(pl.LightningModule):
    """Trains a decoder-only transformer on the mean negative log-likelihood of the next token, in nats.

    Batches are ``Batch(x, y, id)`` with token ids x [B, T], the tokens y [B, T] that follow, -1 where nothing is
    predicted, and id [B]. The first weights are a function of ``seed`` alone, dropout of (seed, batch of the run,
    rank). Validation logs ``val/nll`` in nats a token, ``val/perplexity``, ``val/accuracy`` and, where the datamodule
    says how many bytes each token stands for (``byte_counts`` [V]), ``val/bits_per_byte``; all exact over ranks.

    Args:
        vocab_size: V, as the datamodule says.
        context: T, the longest context.
        network: f and g, a class or factory called with (vocab_size, context).
        optimizer: an optimiser class or factory called with the parameters; weight decay is kept from biases and norms.
        scheduler: a scheduler class or factory called with the optimiser; its lengths are in steps.
        seed: decides the first weights, dropout and, unless ``order_seed`` does, the order of the data.
        order_seed: decides the order of the data.
        measured_positions: held-out positions, about, that callbacks measure: a fixed choice, each time the same.
        compiled: compile the network's blocks for training (``torch.compile``).
    """

    def __init__(
        self,
        vocab_size: int,
        context: int,
        network: DecoderFactory = GPT2,
        optimizer: OptimizerCallable = LanguageAdamW,
        scheduler: LRSchedulerCallable | None = None,
        seed: int = 0,
        order_seed: int | None = None,
        measured_positions: int = 8192,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        require_positive(vocab_size=vocab_size, context=context, measured_positions=measured_positions)
        save_hyperparameters(self)
        with seeded(mix(seed)):
            self.network = network(vocab_size, context)
        self.vocab_size, self.context = vocab_size, context
        self.seed = seed
        self.order_seeds: Sequence[int] = (seed if order_seed is None else order_seed,)
        self.measured_positions = measured_positions
        self.compiled = compiled
        self._optimizer, self._scheduler = plain_factory(optimizer), plain_factory(scheduler)
        self.val_tokens, self.test_tokens = TokenMetric(), TokenMetric()

    @classmethod
    def from_folder(cls, folder: str | Path, **options: Any) -> Self:
        """The GPT-2 or Llama of a Hugging Face folder, ready to be trained on, with the other arguments of the class.

        Raises what ``likeness.networks.decoder_files.read_decoder`` does.
        """
        preset, arguments = read_settings(folder)
        sizes = {"vocab_size": arguments.pop("vocab_size"), "context": arguments.pop("max_length")}
        module = cls(**sizes, network=partial(preset, **arguments), **options)
        load_weights(module.network, folder)
        return module

    def export(self, folder: str | Path) -> None:
        """Write a folder that transformers loads as the same model; see ``decoder_files.write_decoder``."""
        write_decoder(self.network, folder)

    def embed(self, x: Tensor) -> Tensor:
        """f at every position of the contexts [B, T], [B T, M]; with a constant coordinate 1 where labels have a bias.

        Raises ValueError for contexts that are too long and, on the CPU, for an id that is no token.
        """
        f = self.network(x).flatten(0, 1)
        return f if self.network.head_bias is None else torch.cat([f, torch.ones_like(f[:, :1])], dim=1)

    def unembeddings(self) -> Tensor:
        """g(y), [V, M]; with the labels' bias as the last column where there is one."""
        g, bias = whole(self.network.label_vectors()), self.network.head_bias
        return g if bias is None else torch.cat([g, whole(bias).unsqueeze(1)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities [B, T, V] of the next token at every position: for few contexts, since all are held."""
        return (self.embed(x) @ self.unembeddings().mT).log_softmax(-1).unflatten(0, x.shape)

    def sample(
        self, prompt: Tensor, length: int, temperature: float = 1.0, top_k: int | None = None, seed: int = 0
    ) -> Tensor:
        """The prompts [B, T] continued by ``length`` tokens; see :func:`likeness.language.sampling.sample_tokens`."""
        training = self.training
        try:
            return sample_tokens(self.eval()._next_logits, prompt, length, self.context, temperature, top_k, seed)
        finally:
            self.train(training)

    def measured(self, batch: Batch) -> Positions:
        """Held-out positions at which a token is predicted, without the first ones of documents and contexts.

        Before these, all contexts are alike. About ``measured_positions`` are chosen, by a hash of the context's id
        and the place in it.
        """
        length = batch.x.shape[1]
        ids = batch.id.unsqueeze(1) * length + torch.arange(length, device=batch.id.device)
        share = self.measured_positions / max(1, self._held_out_positions(length))
        chosen = hashed(ids) <= min(int(share * LARGEST_HASH), LARGEST_HASH)
        chosen &= (batch.y != IGNORED) & (self.network.document_positions(batch.x) > 0)
        rows = chosen.flatten().nonzero().flatten()
        return Positions(rows, ids.flatten()[rows])

    def configure_model(self) -> None:
        """Under ShardedDataParallel, shard the network block by block."""
        if isinstance(self.trainer.strategy, ShardedDataParallel) and self.device_mesh is not None:
            shard(self.network, list(self.network.blocks), self.device_mesh["data_parallel"], ["loss"])

    def configure_optimizers(self) -> Any:
        return optimization(self._optimizer(without_decay_of_vectors(self)), self._scheduler)

    def on_fit_start(self) -> None:
        for block in self.network.blocks if self.compiled else ():
            block.compile()  # in place: the module, which weight averaging copies, stays what it is

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self._require_tokens(batch, batch_idx)
        torch.manual_seed(step_seed(self, self.seed))  # dropout

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.network.loss(batch.x, batch.y) * _share_of_this_rank(batch.y)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.x), sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate(batch, batch_idx, self.val_tokens)

    def on_validation_epoch_end(self) -> None:
        self._log_metric("val", self.val_tokens)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, batch_idx, self.test_tokens)

    def on_test_epoch_end(self) -> None:
        self._log_metric("test", self.test_tokens)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """``nll`` [B, T], in nats, 0 where nothing is predicted."""
        scores = token_scores(self.embed(batch.x), self.unembeddings(), batch.y.flatten())
        return {"id": batch.id, "nll": scores.nll.view(batch.y.shape)}

    def _evaluate(self, batch: Batch, batch_idx: int, metric: TokenMetric) -> dict[str, Tensor]:
        self._require_tokens(batch, batch_idx)
        f, y = self.embed(batch.x), batch.y.flatten()
        nll, correct = token_scores(f, self.unembeddings(), y)
        predicted = y != IGNORED
        metric.update(nll[predicted], correct[predicted], self._byte_counts(y[predicted]))
        return {"id": batch.id, "nll": nll.view(batch.y.shape), "representations": f}

    def _log_metric(self, split: str, metric: TokenMetric) -> None:
        found = metric.compute()
        metric.reset()
        for name, value in found.items():
            self.log(f"{split}/{name}", value.float(), prog_bar=name == "nll", sync_dist=True)

    def _byte_counts(self, y: Tensor) -> Tensor | None:
        """How many bytes of text the tokens y stand for, where the datamodule knows it."""
        counts: Tensor | None = getattr(getattr(self.trainer, "datamodule", None), "byte_counts", None)
        return None if counts is None else torch.as_tensor(counts).to(y.device)[y]

    def _require_tokens(self, batch: Batch, batch_idx: int) -> None:
        if batch.x.shape != batch.y.shape:
            raise ValueError(f"contexts have shape {list(batch.x.shape)}, what follows them {list(batch.y.shape)}")
        require_labels(batch.x, self.vocab_size, wait=batch_idx == 0)
        require_labels(batch.y.where(batch.y != IGNORED, 0), self.vocab_size, wait=batch_idx == 0)

    def _next_logits(self, ids: Tensor) -> Tensor:
        f = self.embed(ids).unflatten(0, ids.shape)[:, -1]
        return f @ self.unembeddings().mT

    def _held_out_positions(self, length: int) -> int:
        """How many positions the first validation loader has; 0 outside a trainer, which leaves nothing out."""
        loaders: Any = getattr(self._trainer, "val_dataloaders", None)
        loader = loaders[0] if isinstance(loaders, list | tuple) and loaders else loaders
        dataset = getattr(loader, "dataset", ())
        return len(dataset) * length if hasattr(dataset, "__len__") else 0


def _share_of_this_rank(y: Tensor) -> Tensor | float:
    """What this rank's mean weighs in the mean over the predicted tokens of all ranks, times the number of ranks."""
    if num_ranks() == 1:
        return 1.0
    count = (y != IGNORED).sum()
    return count * num_ranks() / sum_over_ranks(count)
