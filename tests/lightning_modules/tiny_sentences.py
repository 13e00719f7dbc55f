"""Sentence pairs and encoders that are small enough to train in a test."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from datamodules.base import ResumableDataModule
from datamodules.splits import PairSplit, SplitName
from lightning_modules import SentenceEncoder
from likeness.networks import SmallTransformer
from likeness.networks.pretrained_text import learn_tokenizer
from likeness.seeding import seeded

SUBJECTS = ("a cat", "the dog", "my neighbour", "an old man", "this parrot")
VERBS = ("sleeps", "dozes", "sings", "hums a song", "runs away", "flees")  # two for each meaning
TEXTS = [f"{subject} {verb}" for subject in SUBJECTS for verb in VERBS]
SMALL = partial(SmallTransformer, width=16, depth=1, heads=2, vocab_size=400, max_length=16)


class TinyPairs(ResumableDataModule[PairSplit]):
    """Two sentences score 5 for the same verb, 4 for the other one of that meaning, 0 else; subjects do not matter."""

    dataset_name = "tiny_pairs"
    sizes = {"train": 96, "val": 41, "test": 17}  # noqa: RUF012

    def __init__(self, batch_size: int = 12, eval_batch_size: int = 8, **kwargs: Any) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, **kwargs)

    def load(self, split: SplitName) -> PairSplit:
        random = torch.Generator().manual_seed(self.sizes[split])
        i, j = torch.randint(len(TEXTS), (2, self.sizes[split]), generator=random)
        verbs = [rows % len(VERBS) for rows in (i, j)]
        meanings = [verb // 2 for verb in verbs]
        score = 4.0 * (meanings[0] == meanings[1]) + 1.0 * (verbs[0] == verbs[1])
        return PairSplit([TEXTS[n] for n in i], [TEXTS[n] for n in j], score)


def encoder(**options: Any) -> SentenceEncoder:
    """An encoder that knows its tokens already."""
    module = SentenceEncoder(**{"encoder": SMALL} | options)
    module.encoder.learn_tokens(TEXTS)
    return module


def write_bert(folder: Path, **options: Any) -> Path:
    """A folder with a tiny BERT, as Hugging Face's library writes it."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    with seeded(5):
        model = BertModel(BertConfig(vocab_size=400, max_position_embeddings=32, **sizes | options))
    model.save_pretrained(folder)
    learn_tokenizer(TEXTS, 400).save_pretrained(folder)
    return folder
