"""Token files small enough to be counted by hand, written by numpy and json and by nothing of ours."""

from pathlib import Path
from typing import Any

import numpy as np

from datamodules.language.documents import Reading, open_documents
from datamodules.language.making import Division, choose_tokenizer, make_token_files
from datamodules.language.token_files import TokenSummary

TEXTS = [f"Text {number} says: naïve café, {'word ' * (number % 7)}and no more." for number in range(40)]


def write_bin(folder: str | Path, dtype: str = "<u2", **parts: Any) -> str:
    """Bare ids by part, as nanoGPT writes them."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for part, ids in parts.items():
        np.asarray(ids, dtype).tofile(Path(folder, f"{part}.bin"))
    return str(folder)


def write_texts(folder: Path, texts: list[str] = TEXTS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number:03d}.txt").write_text(text, encoding="utf-8", newline="")
    return folder


def make(
    source: object,
    out: Path,
    tokenizer: str = "bytes",
    vocab_size: int = 300,
    reading: Reading | None = None,
    **options: Any,
) -> TokenSummary:
    """The token files of a source; ``options`` of ``Division`` among those of ``make_token_files``."""
    division = Division(**{name: options.pop(name) for name in [*options] if hasattr(Division, name)})
    documents = open_documents(str(source), reading or Reading())
    return make_token_files(out, documents, choose_tokenizer(tokenizer, vocab_size), division, **options)[0]


def ids_of(folder: Path, part: str, dtype: str = "<u2") -> np.ndarray:
    return np.fromfile(folder / f"{part}.bin", dtype)
