"""Sentence embeddings: a transformer, pooling and a head, trained on pairs of sentences.

With it stands its export as a folder of sentence-transformers, made of that library's own modules alone.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lightning_modules.hyperparameters import plain_factory, save_hyperparameters
from lightning_modules.metrics import Spearman
from lightning_modules.optimization import SentenceAdamW, optimization, step_seed, without_decay_of_vectors
from lightning_modules.sharding import ShardedDataParallel, shard
from likeness.batch import PairBatch
from likeness.losses import SentenceLossName, sentence_loss
from likeness.networks.pretrained_text import quiet, text_library
from likeness.networks.text_pooling import (
    EmbeddingZScore,
    FeatureCentre,
    FeatureZScore,
    HeadName,
    L2Normalize,
    Pooling,
    PoolingName,
    RowCentre,
    RunningMoments,
    embedding_head,
)
from likeness.networks.text_transformer import PretrainedTransformer, SmallTransformer, TextTransformer
from likeness.numerics import FeatureMoments, cosines
from likeness.seeding import seeded

EncoderFactory = Callable[[], TextTransformer]
MONITOR = "val/spearman"
TOKENIZER = "tokenizer"  # where a checkpoint has it


def export_sentence_transformer(encoder: TextTransformer, pooling: Pooling, head: nn.Sequential, folder: Path) -> None:
    """Write ``folder`` so that ``SentenceTransformer(folder)`` gives the embeddings of encoder, pooling and head.

    Centring and standardising are ``Dense`` layers. A row z-score is the row's direction times sqrt(D), which leaves
    out the 1e-6 that ours adds to the standard deviation. Raises FileExistsError for a folder that is not empty, and
    ValueError for an encoder without tokens.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists already and is not empty")
    if encoder.tokenizer is None:
        raise ValueError("the encoder has no tokens yet, so there is nothing to export: train it first")
    modules = text_library("sentence_transformers.sentence_transformer.modules")
    library = text_library("sentence_transformers")
    with quiet(), tempfile.TemporaryDirectory() as source:
        encoder.model.save_pretrained(source)
        encoder.tokenizer.save_pretrained(source)
        parts = [
            modules.Transformer(source, max_seq_length=encoder.max_length),
            modules.Pooling(encoder.dim, pooling.name),
            *(part for layer in head for part in _parts(layer, encoder.dim)),
        ]
        library.SentenceTransformer(modules=parts, device="cpu").save(str(folder), create_model_card=False)


def _parts(layer: nn.Module, dim: int) -> list[Any]:
    """One of our heads in the modules of sentence-transformers."""
    modules = text_library("sentence_transformers.sentence_transformer.modules")
    identity = torch.eye(dim)
    match layer:
        case L2Normalize():
            return [modules.Normalize()]
        case RowCentre():
            return [_dense(identity - 1 / dim)]
        case EmbeddingZScore():
            return [_dense(identity - 1 / dim), modules.Normalize(), _dense(identity * dim**0.5)]
        case FeatureCentre():
            return [_dense(identity, -layer.mean)]
        case FeatureZScore():
            # Two layers, because a product with large means that is added up only then would cancel.
            scale = FeatureMoments(layer.mean, layer.variance).inverse_std()
            return [_dense(identity, -layer.mean), _dense(scale.diag())]
    raise TypeError(f"a {type(layer).__name__} has no counterpart in sentence-transformers")


def _dense(weight: Tensor, bias: Tensor | None = None) -> Any:
    """x -> weight x + bias."""
    modules = text_library("sentence_transformers.sentence_transformer.modules")
    dense = modules.Dense(*weight.shape, bias=bias is not None, activation_function=nn.Identity())
    with torch.no_grad():
        dense.linear.weight.copy_(weight)
        if bias is not None:
            dense.linear.bias.copy_(bias)
    return dense


class SentenceEncoder(pl.LightningModule):
    """Trains text embeddings on pairs of sentences whose likeness people have scored, or on pairs that belong together.

    First weights that no file gives are a function of ``seed`` alone, dropout of (seed, batch of the run, rank).
    A checkpoint is complete: it holds the architecture and the tokenizer too, and needs neither folder nor hub.

    Args:
        encoder: a transformer, ``likeness.networks.PretrainedTransformer`` or ``SmallTransformer``.
        pooling: of token vectors: ``mean``, ``cls`` (the first token) or ``max``; as the encoder was made if not given.
        head: what follows the pooling: ``none``, ``z`` (row z-score), ``n`` (length 1), ``c`` (row centring), ``c_n``,
            or ``feature_c``, ``feature_c_n``, ``feature_z``, ``feature_z_n`` over texts (``embedding_head``).
        loss: ``cosine``, ``euclidean`` or ``ranking`` (``likeness.losses``).
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

    @property
    def is_pretrained(self) -> bool:
        """Whether the embeddings can be tested before any training: nothing in them is random or yet to be learned."""
        from_files = isinstance(self.encoder, PretrainedTransformer) and self.encoder.tokenizer is not None
        return from_files and not any(isinstance(layer, RunningMoments) for layer in self.head)

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

    def validation_step(self, batch: PairBatch, batch_idx: int) -> dict[str, Tensor]:
        return {"representations": self._evaluate("val", batch, self.val_spearman)}

    def test_step(self, batch: PairBatch, batch_idx: int) -> None:
        self._evaluate("test", batch, self.test_spearman)

    def predict_step(self, batch: PairBatch, batch_idx: int) -> dict[str, Tensor]:
        return {"id": batch.id, "cosine": cosines(*self._embed_pairs(batch))}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[TOKENIZER] = self.encoder.tokenizer_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if TOKENIZER not in checkpoint:
            raise ValueError("it has no tokenizer")
        self.encoder.load_tokenizer_state(checkpoint[TOKENIZER])

    def _embed_pairs(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        first, second = self.embed([*batch.first, *batch.second]).chunk(2)
        return first, second

    def _evaluate(self, split: str, batch: PairBatch, spearman: Spearman) -> Tensor:
        """Adds a batch to the metric; answers the embeddings of the pairs' first sentences, [N, M]."""
        first, second = self._embed_pairs(batch)
        spearman.update(cosines(first, second), batch.score)
        self.log(f"{split}/spearman", spearman, prog_bar=True, batch_size=len(batch.score), sync_dist=True)
        return first

    def _training_texts(self) -> list[str]:
        """All sentences of the training pairs, in the order of the data set."""
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if datamodule is None:
            raise ValueError("a SmallTransformer learns its tokens from a datamodule's training pairs: give fit() one")
        split = datamodule.splits["train"]
        pairs: PairBatch = split[torch.arange(len(split))]
        return [*pairs.first, *pairs.second]
