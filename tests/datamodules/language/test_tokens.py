"""The datamodule: the order is a function of seeds, resuming is bit exact, and bits per byte are those of the text."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datamodules import Tokens
from datamodules.language.windows import epoch_offset
from datamodules.samplers import epoch_order
from likeness.batch import Batch
from tests.conftest import ROOT
from tests.datamodules.language.toys import ids_of, make, write_bin, write_texts
from tests.datamodules.toys import Recorder, Save, trainer

COUNT, CONTEXT, BATCHES = 203, 8, 6  # of 4 of 24 windows, in an epoch


class Reader(Recorder):
    """Keeps all of each training batch; its weight moves by what it was given, so that it tells the whole past."""

    def __init__(self, folder: Path | None = None, order_seeds: tuple[int, ...] | None = None) -> None:
        super().__init__(order_seeds)
        self.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.batches: list[list[list[int]]] = []
        self.folder = folder

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.batches.append(torch.cat([batch.id[:, None], batch.x, batch.y], 1).tolist())
        return self.weight * (batch.x * (self.weight.detach() + batch.y)).double().mean()

    def on_fit_end(self) -> None:
        if self.folder is not None:
            seen = {"batches": self.batches, "weight": self.weight.item()}
            (self.folder / f"rank{self.global_rank}.json").write_text(json.dumps(seen))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    ids = np.random.default_rng(0).integers(0, 300, (2, COUNT))
    return write_bin(tmp_path_factory.mktemp("tokens"), train=ids[0], val=ids[1])


def tokens(folder: str, workers: int = 0, seed: int = 3) -> Tokens:
    options = {"batch_size": 4, "eval_batch_size": 4, "num_workers": workers, "seed": seed}
    return Tokens(folder, CONTEXT, vocab_size=300, **options)  # type: ignore[arg-type]


def fit(folder: str, workers: int = 0, checkpoint: Path | None = None, **kwargs: Any) -> Reader:
    model = Reader()
    settings = {"max_epochs": 3, "limit_val_batches": 0} | kwargs
    trainer(**settings).fit(
        model, tokens(folder, workers), ckpt_path=checkpoint, weights_only=True if checkpoint else None
    )
    return model


@pytest.fixture(scope="module")
def whole(folder: str) -> Reader:
    return fit(folder)


def test_batches_are_the_windows_that_the_specification_names(folder: str, whole: Reader) -> None:
    """Written out from (seed, epoch): offset plus T times a permutation, and the file's tokens from there on."""
    ids = ids_of(Path(folder), "train").astype(int)
    expected = []
    for epoch in range(3):
        starts = epoch_offset(3, epoch, CONTEXT) + CONTEXT * epoch_order(3, epoch, 24)
        expected += [[[s, *ids[s : s + 8], *ids[s + 1 : s + 9]] for s in part.tolist()] for part in starts.split(4)]
    assert whole.batches == expected
    assert len({epoch_offset(3, epoch, CONTEXT) for epoch in range(3)}) > 1


def test_the_order_is_a_function_of_seed_and_epoch(folder: str, whole: Reader) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    data = tokens(folder)
    data.setup("fit")
    loader = data.train_dataloader()
    again = [batch.id.tolist() for batch in loader]
    assert torch.equal(torch.get_rng_state(), before)
    assert again == [[row[0] for row in batch] for batch in whole.batches[:BATCHES]]
    other = tokens(folder, seed=4)
    other.setup("fit")
    assert [batch.id.tolist() for batch in other.train_dataloader()] != again


def test_siblings_see_what_each_would_see_alone(folder: str) -> None:
    together, alone = Reader(order_seeds=(7, 3)), []
    trainer(max_epochs=2, limit_val_batches=0).fit(together, tokens(folder))
    for seed in (7, 3):
        alone.append(Reader())
        trainer(max_epochs=2, limit_val_batches=0).fit(alone[-1], tokens(folder, seed=seed))
    assert together.batches == [a + b for a, b in zip(alone[0].batches, alone[1].batches, strict=True)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("step", [4, 6, 11])
def test_stopped_and_continued_is_the_uninterrupted_run(
    tmp_path: Path, folder: str, whole: Reader, workers: int, step: int
) -> None:
    path = tmp_path / "stop.ckpt"
    first = fit(folder, workers, max_steps=step, max_epochs=-1, callbacks=[Save("on_train_batch_end", step, path)])
    second = fit(folder, workers, path)
    assert first.batches + second.batches == whole.batches
    assert second.weight.item() == whole.weight.item() != 0


def test_two_ranks_train_on_the_batches_of_one_and_go_on_from_it(tmp_path: Path, folder: str, whole: Reader) -> None:
    path = tmp_path / "stop.ckpt"
    fit(folder, max_steps=4, max_epochs=-1, callbacks=[Save("on_train_batch_end", 4, path)])
    two = trainer(strategy="ddp_fork", devices=2, max_epochs=3, limit_val_batches=0)
    two.fit(Reader(tmp_path), tokens(folder, 1), ckpt_path=path, weights_only=True)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    together = [sorted(a + b) for a, b in zip(*(rank["batches"] for rank in ranks), strict=True)]
    assert together == [sorted(batch) for batch in whole.batches[4:]]
    assert ranks[0]["weight"] == ranks[1]["weight"] == pytest.approx(whole.weight.item(), rel=1e-12)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"context": 9}, "num_samples is 21.* with 24"),
        ({"seed": 4}, r"seeds is \[4\]"),
        ({"folder": "other"}, "digest is"),
    ],
)
def test_other_windows_are_refused_in_the_middle_of_an_epoch(
    tmp_path: Path, folder: str, changed: dict[str, Any], message: str
) -> None:
    path = tmp_path / "stop.ckpt"
    fit(folder, max_steps=4, max_epochs=-1, callbacks=[Save("on_train_batch_end", 4, path)])
    if "folder" in changed:
        changed = {"folder": write_bin(tmp_path, train=[1] * COUNT, val=[1] * COUNT)}
    options = {"folder": folder, "context": CONTEXT, "vocab_size": 300, "batch_size": 4, "seed": 3} | changed
    with pytest.raises(ValueError, match=message):
        trainer(max_epochs=3).fit(Reader(), Tokens(**options), ckpt_path=path, weights_only=True)


def test_no_tokens_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="vocab_size must be at least 1, got 0"):
        Tokens(vocab_size=0)


def test_overfitting_repeats_the_windows_of_the_first_epoch(folder: str) -> None:
    model = fit(folder, overfit_batches=2)
    assert len(model.batches) == 6
    assert model.batches[:2] == model.batches[2:4] == model.batches[4:]


@pytest.mark.parametrize(("stride", "by_document"), [(None, False), (5, False), (None, True), (3, True)])
def test_bits_per_byte_of_a_model_of_bytes_are_its_nats_over_ln_2(
    tmp_path: Path, stride: int | None, by_document: bool
) -> None:
    make(write_texts(tmp_path / "texts"), tmp_path / "out", val_fraction=0.3, test_fraction=0.2)
    data = Tokens(str(tmp_path / "out"), 16, stride, by_document, batch_size=2, eval_batch_size=7)
    data.setup("validate")
    costs = -torch.log_softmax(torch.randn(257, generator=torch.Generator().manual_seed(0)).double(), 0)
    targets = torch.cat([batch.y[batch.y >= 0] for batch in data.val_dataloader()])
    ids = ids_of(tmp_path / "out", "val").astype(int)
    assert sorted(targets.tolist()) == sorted(ids[1:].tolist())
    nll, size = float(costs[targets].mean()), sum(map(data.num_bytes, [b.y for b in data.val_dataloader()]))
    bits_per_byte = float(costs[targets].sum()) / math.log(2) / size
    assert size == len(ids) - 1  # each byte, and one for the end of each text
    assert bits_per_byte == pytest.approx(nll / math.log(2), rel=1e-12)
    assert bits_per_byte == pytest.approx(-np.mean(np.log2(np.exp(-costs.numpy())[ids[1:]])), rel=1e-12)


def test_bytes_of_other_tokenizers_are_those_of_the_text(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    texts = write_texts(tmp_path / "texts")
    sizes = {}
    for name in ("bytes", "bpe"):
        make(texts, tmp_path / name, name)
        data = Tokens(str(tmp_path / name), 8, batch_size=2)
        data.setup()
        everything = [
            data.files.file(part).windows(torch.tensor([0]), data.files.summary.parts[part].count)
            for part in data.files.parts()
        ]
        sizes[name] = [data.num_bytes(ids) for ids in everything]
    assert sizes["bytes"] == sizes["bpe"]  # the parts are the same texts
    files = [path.read_bytes() for path in texts.iterdir()]
    assert sum(sizes["bpe"]) == sum(map(len, files)) + len(files)


def test_the_docstrings_need_no_files(tmp_path: Path) -> None:
    """About 5,400 texts; they are made once."""
    data = Tokens(vocab_size=257, data_dir=str(tmp_path / "made"))
    assert (data.vocab_size, data.num_classes, data.input_shape) == (257, 257, (128,))  # before anything is made
    data.prepare_data()
    data.setup()
    times = {path: path.stat().st_mtime_ns for path in data.files.path.iterdir()}
    assert len(times) == 9
    Tokens(vocab_size=257, data_dir=str(tmp_path / "made")).prepare_data()
    assert {path: path.stat().st_mtime_ns for path in data.files.path.iterdir()} == times
    batch = next(iter(data.train_dataloader()))
    assert batch.x.shape == batch.y.shape == (128, 128)
    assert torch.equal(batch.x[:, 1:], batch.y[:, :-1])
    summary = data.files.summary
    assert summary is not None
    assert summary.separator == data.separator == 256
    assert sum(part.documents for part in summary.parts.values()) > 4_000
    assert 0.04 < summary.parts["val"].documents / summary.parts["train"].documents < 0.07


ALLOWED = 8 << 20  # bytes of its own that an epoch may take beyond the libraries
EPOCH = """
import re, resource, sys
from pathlib import Path
import numpy as np, torch
from datamodules.language.token_files import TokenFile
from datamodules.language.windows import TrainingWindows
from datamodules.samplers import TrainOrder
from likeness.language.text_tokenizer import learn_byte_pairs

folder, allowed = Path(sys.argv[1]), int(sys.argv[2])
print(learn_byte_pairs((folder / "lines.txt").read_text().splitlines(), 400).digest)
windows = TrainingWindows(TokenFile(folder / "train.bin", "uint16", 300), 4096)
order = TrainOrder(len(windows), 8, (0,))
order.tells_epoch = True
windows[next(iter(order))]  # libraries are in memory
own = int(re.search(r"VmData:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (own + allowed, resource.RLIM_INFINITY))
read = sum(windows[visits].x.numel() * 2 for visits in order)  # of the file
try:
    np.ones(read, np.uint8)
except MemoryError:
    print(read > 2 * allowed, "the limit holds")
resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on a process's own memory is Linux's")
def test_another_process_learns_the_same_tokens_and_reads_more_than_it_may_hold(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    from likeness.language.text_tokenizer import learn_byte_pairs

    lines = [f"the {number} things that were said of it, and {number * 7} more" for number in range(300)]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    with (tmp_path / "train.bin").open("wb") as file:
        file.truncate(20 << 20)  # zeros that take no disk
    ended = subprocess.run(
        [sys.executable, "-c", EPOCH, str(tmp_path), str(ALLOWED)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    digest = learn_byte_pairs(lines, 400).digest
    assert ended.stdout.splitlines() == [digest, "True the limit holds"], ended.stderr
