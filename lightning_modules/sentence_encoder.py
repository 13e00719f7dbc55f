"""Sentence embeddings: a transformer, pooling and a head, trained on pairs of sentences."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.hyperparameters import plain_factory, save_hyperparameters
from lightning_modules.optimization import SentenceAdamW, optimization, without_decay_of_vectors
from lightning_modules.sentence_export import export_sentence_transformer
from lightning_modules.sharded_strategy import ShardedDataParallel, shard
from lightning_modules.spearman import Spearman
from lightning_modules.step_seed import step_seed
from likeness.batch import PairBatch
from likeness.networks.pooling import HeadName, Pooling, PoolingName, embedding_head
from likeness.networks.text_transformer import SmallTransformer, TextTransformer
from likeness.seeding import seeded
from likeness.sentence_losses import SentenceLossName, sentence_loss

EncoderFactory = Callable[[], TextTransformer]
MONITOR = "val/spearman"
TOKENIZER = "tokenizer"  # where a checkpoint has it


class SentenceEncoder(pl.LightningModule):
    """Trains text embeddings on pairs of sentences whose likeness people have scored, or on pairs that belong together.

    First weights that no file gives are a function of ``seed`` alone, dropout of (seed, batch of the run, rank).
    A checkpoint is complete: it holds the architecture and the tokenizer too, and needs neither folder nor hub.

    Args:
        encoder: a transformer, ``likeness.networks.PretrainedTransformer`` or ``SmallTransformer``.
        pooling: of token vectors: ``mean``, ``cls`` (the first token) or ``max``; as the encoder was made if not given.
        head: what follows the pooling: ``none``, ``z`` (row z-score), ``n`` (length 1), ``c`` (row centring), ``c_n``,
            or ``feature_c``, ``feature_c_n``, ``feature_z``, ``feature_z_n`` over texts (``embedding_head``).
        loss: ``cosine``, ``euclidean`` or ``ranking`` (``likeness.sentence_losses``).
        scale: factor of the cosines in the loss ``ranking``.
        positive_score: the least score of a pair that belongs together, for the loss ``ranking``.
        optimizer: an optimiser class or factory called with the parameters.
        scheduler: a scheduler class or factory called with the optimiser; its lengths are in steps.
        seed: decides first weights, dropout and, unless ``order_seed`` does, the order of the data.
        order_seed: decides the order of the data.
    """

    def __init__(
        self,
        encoder: EncoderFactory = SmallTransformer,
        pooling: PoolingName | None = None,
        head: HeadName = "none",
        loss: SentenceLossName = "cosine",
        scale: float = 20.0,
        positive_score: float = 4.0,
        optimizer: OptimizerCallable = SentenceAdamW,
        scheduler: LRSchedulerCallable | None = None,
        seed: int = 0,
        order_seed: int | None = None,
    ) -> None:
        super().__init__()
        save_hyperparameters(self)
        self._loss = sentence_loss(loss, scale, positive_score)
        with seeded(seed):
            self.encoder = encoder()
        self.pooling = Pooling(pooling or self.encoder.pooling)
        self.head = embedding_head(head, self.encoder.dim)
        self.hparams["encoder"]["init_args"] |= self.encoder.arguments()
        self.seed = seed
        self.order_seeds: Sequence[int] = (seed if order_seed is None else order_seed,)
        self._optimizer, self._scheduler = plain_factory(optimizer), plain_factory(scheduler)
        self.val_spearman, self.test_spearman = Spearman(), Spearman()

    def embed(self, x: Sequence[str]) -> Tensor:
        """Embeddings of texts, [N, M], as many at once as are given.

        Raises TypeError for anything but a list of texts, ValueError for a text that has no tokens.
        """
        embeddings: Tensor = self.head(self.pooling(*self.encoder(x)))
        return embeddings

    def export(self, folder: str | Path) -> None:
        """Write a folder that ``sentence_transformers.SentenceTransformer`` loads, with the same embeddings.

        Raises FileExistsError for a folder that is not empty.
        """
        export_sentence_transformer(self.encoder, self.pooling, self.head, Path(folder))

    def setup(self, stage: str) -> None:
        if stage == "fit" and isinstance(self.encoder, SmallTransformer) and self.encoder.tokenizer is None:
            self.encoder.learn_tokens(self._training_texts())

    def configure_model(self) -> None:
        """Under ShardedDataParallel, shard the transformer layer by layer."""
        if isinstance(self.trainer.strategy, ShardedDataParallel) and self.device_mesh is not None:
            shard(self.encoder.model, self.encoder.layers(), self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> Any:
        return optimization(self._optimizer(without_decay_of_vectors(self)), self._scheduler, MONITOR)

    def on_train_batch_start(self, batch: PairBatch, batch_idx: int) -> None:
        torch.manual_seed(step_seed(self, self.seed))  # dropout

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        loss = self._loss(*self._embed_pairs(batch), batch.score)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.score), sync_dist=True)
        return loss

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        self._evaluate("val", batch, self.val_spearman)

    def test_step(self, batch: PairBatch, batch_idx: int) -> None:
        self._evaluate("test", batch, self.test_spearman)

    def predict_step(self, batch: PairBatch, batch_idx: int) -> dict[str, Tensor]:
        return {"id": batch.id, "cosine": F.cosine_similarity(*self._embed_pairs(batch))}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[TOKENIZER] = self.encoder.tokenizer_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if TOKENIZER not in checkpoint:
            raise ValueError("it has no tokenizer")
        self.encoder.load_tokenizer_state(checkpoint[TOKENIZER])

    def _embed_pairs(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        first, second = self.embed([*batch.first, *batch.second]).chunk(2)
        return first, second

    def _evaluate(self, split: str, batch: PairBatch, spearman: Spearman) -> None:
        spearman.update(F.cosine_similarity(*self._embed_pairs(batch)), batch.score)
        self.log(f"{split}/spearman", spearman, prog_bar=True, batch_size=len(batch.score), sync_dist=True)

    def _training_texts(self) -> list[str]:
        """All sentences of the training pairs, in the order of the data set."""
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if datamodule is None:
            raise ValueError("a SmallTransformer learns its tokens from a datamodule's training pairs: give fit() one")
        split = datamodule.splits["train"]
        pairs: PairBatch = split[torch.arange(len(split))]
        return [*pairs.first, *pairs.second]
