"""What modules of language models share: the softmax model of every position, its evaluation, and what is measured."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_modules.metrics import TokenMetric
from lightning_modules.sharding import ShardedDataParallel, shard, whole
from likeness.batch import Batch, Positions
from likeness.checks import require_labels, require_positive
from likeness.distributed import num_ranks, sum_over_ranks
from likeness.language.loss import IGNORED, TokenScores, token_scores
from likeness.language.text_tokenizer import TextTokenizer
from likeness.networks.decoder import Decoder
from likeness.seeding import hashed

DecoderFactory = Callable[[int, int], Decoder]
LARGEST_HASH = 2**63 - 1
TOKENIZER = "tokenizer"  # where a checkpoint has it


class TokenModule(pl.LightningModule):
    """The ``network`` of one language model or of P siblings, whose answers have a leading dimension P.

    ``tokenizer`` is that of the data it was trained on, where these know theirs, and goes with every checkpoint.
    """

    network: Decoder
    vocab_size: int
    context: int
    measured_positions: int
    compiled: bool
    tokenizer: TextTokenizer | None = None
    val_tokens: TokenMetric
    test_tokens: TokenMetric

    def set_sizes(self, vocab_size: int, context: int, measured_positions: int, num_members: int | None = None) -> None:
        """Call in ``__init__``: V, T and the number of held-out positions that are measured, and metrics for them."""
        require_positive(vocab_size=vocab_size, context=context, measured_positions=measured_positions)
        self.vocab_size, self.context, self.measured_positions = vocab_size, context, measured_positions
        self.val_tokens, self.test_tokens = TokenMetric(num_members), TokenMetric(num_members)

    def setup(self, stage: str) -> None:
        """Take the tokenizer of the data. Raises ValueError where ids stood for other tokens in training."""
        given: TextTokenizer | None = getattr(getattr(self.trainer, "datamodule", None), TOKENIZER, None)
        if given is not None:
            self.require_tokenizer(given, "the data")
            self.tokenizer = given if self.tokenizer is None and stage == "fit" else self.tokenizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.tokenizer is not None:
            checkpoint[TOKENIZER] = self.tokenizer.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if TOKENIZER in checkpoint:
            found = TextTokenizer.of_state(checkpoint[TOKENIZER])
            self.require_tokenizer(found, "the checkpoint")
            self.tokenizer = found

    def require_tokenizer(self, other: TextTokenizer, of: str) -> None:
        """Raise ValueError, naming both digests, where ids stand for other tokens than this model's."""
        own = self.tokenizer
        if own is not None and own.vocabulary_digest != other.vocabulary_digest:
            raise ValueError(
                f"the tokens of {of} are not those of the model: the digest of their bytes is "
                f"{other.vocabulary_digest[:12]}, the model's {own.vocabulary_digest[:12]}"
            )

    def configure_model(self) -> None:
        """Under ShardedDataParallel, shard the network block by block."""
        if isinstance(self.trainer.strategy, ShardedDataParallel) and self.device_mesh is not None:
            shard(self.network, list(self.network.blocks), self.device_mesh["data_parallel"], ["loss"])

    def on_fit_start(self) -> None:
        for block in self.network.blocks if self.compiled else ():
            block.compile()  # in place: the module, which weight averaging copies, stays what it is

    def log_tokens(self, name: str, value: Tensor, **options: Any) -> None:
        """Log what was found of the model, exact over ranks already."""
        self.log(name, value.float(), sync_dist=True, **options)

    def require_tokens(self, batch: Batch, batch_idx: int) -> None:
        """Raise ValueError for a batch of other shapes or tokens; on the GPU for the first batch alone."""
        if batch.x.shape != batch.y.shape:
            raise ValueError(f"contexts have shape {list(batch.x.shape)}, what follows them {list(batch.y.shape)}")
        require_labels(batch.x, self.vocab_size, wait=batch_idx == 0)
        require_labels(batch.y.where(batch.y != IGNORED, 0), self.vocab_size, wait=batch_idx == 0)

    def embed(self, x: Tensor) -> Tensor:
        """f at every position of the contexts [B, T], [B T, M]; with a constant coordinate 1 where labels have a bias.

        Raises ValueError for contexts that are too long and, on the CPU, for an id that is no token.
        """
        f = self.network(x).flatten(-3, -2)
        return f if self.network.head_bias is None else torch.cat([f, torch.ones_like(f[..., :1])], dim=-1)

    def unembeddings(self) -> Tensor:
        """g(y), [V, M]; with the labels' bias as the last column where there is one."""
        g, bias = whole(self.network.label_vectors()), self.network.head_bias
        return g if bias is None else torch.cat([g, whole(bias).unsqueeze(-1)], dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities [B, T, V] of the next token at every position: for few contexts, since all are held."""
        return (self.embed(x) @ self.unembeddings().mT).log_softmax(-1).unflatten(-2, x.shape[-2:])

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
        _, scores = self._scores(batch)
        return {"id": batch.id, "nll": scores.nll.unflatten(-1, batch.y.shape)}

    def _evaluate(self, batch: Batch, batch_idx: int, metric: TokenMetric) -> dict[str, Tensor]:
        self.require_tokens(batch, batch_idx)
        f, (nll, correct) = self._scores(batch)
        predicted = batch.y.flatten() != IGNORED
        metric.update(nll[..., predicted], correct[..., predicted], self._byte_counts(batch.y.flatten()[predicted]))
        return {"id": batch.id, "nll": nll.unflatten(-1, batch.y.shape), "representations": f}

    def _scores(self, batch: Batch) -> tuple[Tensor, TokenScores]:
        """f at all positions, and what it says of the tokens that follow."""
        f = self.embed(batch.x)
        return f, token_scores(f, self.unembeddings(), batch.y.flatten().expand(f.shape[:-1]))

    def _log_metric(self, split: str, metric: TokenMetric) -> None:
        found = metric.compute()
        metric.reset()
        for name, value in found.items():
            self.log_tokens(f"{split}/{name}", value, prog_bar=name == "nll")

    def _byte_counts(self, y: Tensor) -> Tensor | None:
        """How many bytes of text the tokens y stand for, where the datamodule knows it."""
        counts: Tensor | None = getattr(getattr(self.trainer, "datamodule", None), "byte_counts", None)
        return None if counts is None else torch.as_tensor(counts).to(y.device)[y]

    def _held_out_positions(self, length: int) -> int:
        """How many positions the first validation loader has; 0 outside a trainer, which leaves nothing out."""
        loaders: Any = getattr(self._trainer, "val_dataloaders", None)
        loader = loaders[0] if isinstance(loaders, list | tuple) and loaders else loaders
        dataset = getattr(loader, "dataset", ())
        return len(dataset) * length if hasattr(dataset, "__len__") else 0


def share_of_this_rank(y: Tensor) -> Tensor | float:
    """What this rank's mean over y [B, T] weighs in that of all ranks, times their number; [P] of y [P, B, T]."""
    if num_ranks() == 1:
        return 1.0
    count = (y != IGNORED).sum((-2, -1))
    return count * num_ranks() / sum_over_ranks(count)
