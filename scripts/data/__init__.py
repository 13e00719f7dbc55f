"""What Likeness sees in somebody's data, and the configuration to use them: ``likeness data FILE_OR_FOLDER``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser

from scripts.cli.entry_point import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Look, print, write; raises what went wrong. ``tokenize`` as the first word is a command of its own."""
    argv = sys.argv[1:] if argv is None else argv
    if [*argv[:1]] == ["tokenize"]:
        from scripts.data.tokenizing import main as tokenize

        return tokenize(argv[1:])
    arguments = build_parser().parse_args(argv)
    from likeness.checks import require_positive
    from scripts.data.looking import look
    from scripts.data.proposal import as_yaml, propose
    from scripts.data.tables import reports

    require_positive(**{"--samples": arguments.samples})
    proposal = propose(arguments.data, arguments.name, arguments.layout)
    findings = look(proposal, arguments.samples)
    for report in reports(proposal, findings):
        report.show()
    text = as_yaml(proposal.completed(findings))
    print(text, end="")
    if arguments.out:
        _write(Path(arguments.out), text)
    return 0


def build_parser() -> ArgumentParser:
    """The command line of this command."""
    parser = Parser(
        prog="likeness data",
        description="Show what is in a folder of pictures, a file of arrays or a Hugging Face data set: shapes, "
        "classes, levels, splits, duplicates, and what cannot be read; and the data config that reads it.",
        epilog="'likeness data tokenize --help' tells how texts become tokens for language models.",
    )
    add = parser.add_argument
    add("data", metavar="FILE_OR_FOLDER", help="A folder of pictures or of save_to_disk, or .npz, .npy, .safetensors, "
        "Parquet; or the name of a data set in the local cache of the hub.")  # fmt: skip
    add(
        "--name", type=str | None, help="What metrics and tables shall call the data; by default as the file is called."
    )
    add("--samples", type=int | None, help="How many samples of each part to read, evenly spaced; by default all.")
    add("--layout", type=Literal["auto", "hwc", "chw"], default="auto", help="Whether channels come last or first.")
    add("--out", type=str | None, help="Where to write the data config, too: a .yaml file.")
    return parser


def _write(path: Path, text: str) -> None:
    from likeness.files.writing import replacing

    if path.suffix not in (".yaml", ".yml"):
        raise ValueError(f"--out writes a .yaml file, got {path}")
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"likeness: wrote {path}")
