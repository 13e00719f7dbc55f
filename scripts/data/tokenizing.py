"""Texts as token files for language models: ``likeness data tokenize SOURCE --out FOLDER``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from datamodules.language.documents import Reading, Unit, open_documents
from likeness.files.errors import DataError
from scripts.cli.entry_point import Parser
from scripts.cli.functions import add_options
from scripts.cli.given import require_default

if TYPE_CHECKING:
    from datamodules.language.token_files import TokenFolder


def main(argv: Sequence[str]) -> int:
    """Make the files, print what is in them and the configuration to use them; raises what went wrong."""
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.tokenizer != "bpe":
        require_default(parser, options, ["vocab_size"], f"with --tokenizer {options.tokenizer}")
    if options.tokenizer in ("bpe", "bytes"):
        require_default(parser, options, ["separator"], f"with --tokenizer {options.tokenizer}, which has its own")
    given = options.as_dict()
    tokenize(given.pop("source"), **given)
    return 0


def build_parser() -> Parser:
    """The command line of this command."""
    parser = Parser(
        prog="likeness data tokenize",
        description="Write texts as token files that datamodules.Tokens maps into memory, with their tokenizer.",
        epilog="The same texts and tokenizer give the same files; files that are there already are not made again.",
    )
    add_options(parser, tokenize)
    return parser


def tokenize(
    source: str | None = None,
    /,
    *,
    out: str | None = None,
    tokenizer: str = "bpe",
    vocab_size: int = 2048,
    separator: str | None = None,
    documents: Unit = "file",
    pattern: str = "*.txt",
    column: str | None = None,
    encoding: str = "utf-8",
    val_fraction: float = 0.05,
    test_fraction: float = 0.05,
    split_seed: int = 0,
    drop_empty: bool = False,
    overwrite: bool = False,
) -> None:
    """Write token files.

    Args:
        source: A text file, CSV or TSV table, Parquet file, folder of such, folder of save_to_disk, name of a data set
            in the local cache of the hub, or docstrings. Files or folders called train, val and test are the parts.
        out: The folder to write.
        tokenizer: bpe, byte pairs learned from the training texts; bytes; or a folder or file of a tokenizer.
        vocab_size: How many byte pairs to learn, the 256 bytes and the separator among them.
        separator: The token that ends a document, where the tokenizer does not say it or says another.
        documents: Whether a text file is a document, or each of its lines.
        pattern: Which files of a folder are texts.
        column: The column of texts in tables, Parquet files and data sets.
        encoding: How text files are encoded.
        val_fraction: Share of the documents held out for validation where no such part is there; a single document is
            cut at an end of line.
        test_fraction: Share held out for the test.
        split_seed: Decides which documents are held out, by a hash of their texts.
        drop_empty: Leave out texts of nothing but white space, instead of refusing them.
        overwrite: Replace token files of other texts in the folder.
    """
    if source is None or out is None:
        raise ValueError("name the texts and the folder: likeness data tokenize SOURCE --out FOLDER")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # nothing is forked here
    from datamodules.language.making import Division, choose_tokenizer, make_token_files
    from datamodules.language.token_files import TokenFolder

    folder = Path(out).expanduser()
    _, there = make_token_files(
        folder,
        open_documents(source, Reading(documents, pattern, column, encoding)),
        choose_tokenizer(tokenizer, vocab_size, separator),
        Division(val_fraction, test_fraction, split_seed),
        drop_empty=drop_empty,
        overwrite=overwrite,
    )
    _show(TokenFolder(folder), source)
    print(_as_yaml(folder), end="")
    print(f"likeness: {'nothing to do, these files are there already in' if there else 'wrote'} {folder}")


def _show(tokens: TokenFolder, source: str) -> None:
    from scripts.reporting import Report

    summary = tokens.summary
    if summary is None or tokens.tokenizer is None:
        raise DataError(f"{tokens.path} lost its description while it was written")
    rows = [
        {
            "part": part,
            "documents": its.documents,
            "tokens": its.count,
            "bytes": its.bytes,
            "bytes a token": its.bytes / its.count,
        }
        for part, its in summary.parts.items()
    ]
    notes = [f"token {summary.separator}, {tokens.tokenizer.separator_text!r}, ends each document"]
    size, spelt = (
        sum(values) for values in zip(*((p.bytes, p.token_bytes) for p in summary.parts.values()), strict=True)
    )
    if size != spelt:
        notes += [f"this tokenizer changes texts: the tokens stand for {spelt} bytes, the texts have {size}"]
    Report(f"{source} as {summary.vocab_size} tokens of {summary.dtype}", rows, notes=notes).show()


def _as_yaml(folder: Path) -> str:
    options = {"dataset_name": folder.name, "folder": str(folder), "context": 128, "batch_size": 32}
    return yaml.safe_dump({"data": {"class_path": "datamodules.Tokens", "init_args": options}}, sort_keys=False)
