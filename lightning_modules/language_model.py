"""A language model p(y | x) = softmax_y f(x) . g(y): the next token y after a context x of tokens."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lightning_modules.hyperparameters import plain_factory, save_hyperparameters
from lightning_modules.optimization import LanguageAdamW, optimization, step_seed, without_decay_of_vectors
from lightning_modules.token_module import DecoderFactory, TokenModule, share_of_this_rank
from likeness.batch import Batch
from likeness.language.sampling import sample_tokens
from likeness.networks.decoder import GPT2
from likeness.networks.decoder_files import load_weights, read_settings, write_decoder
from likeness.seeding import mix, seeded


class LanguageModel(TokenModule):
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
        compiled: compile the network's blocks for training (``torch.compile``); masks of dropout are then
            of the compiler's own.
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
        self.set_sizes(vocab_size, context, measured_positions)
        save_hyperparameters(self)
        with seeded(mix(seed)):
            self.network = network(vocab_size, context)
        self.seed = seed
        self.order_seeds: Sequence[int] = (seed if order_seed is None else order_seed,)
        self.compiled = compiled
        self._optimizer, self._scheduler = plain_factory(optimizer), plain_factory(scheduler)

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

    def sample(
        self, prompt: Tensor, length: int, temperature: float = 1.0, top_k: int | None = None, seed: int = 0
    ) -> Tensor:
        """The prompts [B, T] continued by ``length`` tokens; see :func:`likeness.language.sampling.sample_tokens`."""
        training = self.training
        try:
            return sample_tokens(self.eval()._next_logits, prompt, length, self.context, temperature, top_k, seed)
        finally:
            self.train(training)

    def configure_optimizers(self) -> Any:
        return optimization(self._optimizer(without_decay_of_vectors(self)), self._scheduler)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.require_tokens(batch, batch_idx)
        torch.manual_seed(step_seed(self, self.seed))  # dropout

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.network.loss(batch.x, batch.y) * share_of_this_rank(batch.y)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.x), sync_dist=True)
        return loss

    def _next_logits(self, ids: Tensor) -> Tensor:
        f = self.embed(ids).unflatten(0, ids.shape)[:, -1]
        return f @ self.unembeddings().mT
