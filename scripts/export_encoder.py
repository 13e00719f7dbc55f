"""A trained sentence encoder for other programs: ``python -m scripts.export_encoder RUN_OR_CKPT FOLDER``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from scripts.cli.entry_point import Parser, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Load, write; raises what went wrong."""
    arguments = build_parser().parse_args(argv)
    from lightning_modules import SentenceEncoder
    from lightning_modules.checkpoints import load_module

    module = load_module(arguments.model, arguments.weights)
    if not isinstance(module, SentenceEncoder):
        raise ValueError(f"{arguments.model} holds a {type(module).__name__}, which is no SentenceEncoder")
    module.export(arguments.folder)
    print(f"likeness: wrote {Path(arguments.folder)}: SentenceTransformer({str(arguments.folder)!r}) loads it")
    return 0


def build_parser() -> Parser:
    """The command line of this command."""
    parser = Parser(
        prog="likeness export_encoder",
        description="Write a trained sentence encoder as a folder that sentence-transformers loads.",
        epilog="The folder is made of that library's own modules, the head's centring and scaling among them.",
    )
    parser.add_argument("model", metavar="RUN_OR_CKPT", help="A run or checkpoint of a SentenceEncoder.")
    parser.add_argument("folder", metavar="FOLDER", help="A folder that is not there yet, or empty.")
    weights = Literal["ema", "raw"]
    parser.add_argument("--weights", type=weights, default="ema", help="Averages over steps (ema), or the last (raw).")
    return parser


if __name__ == "__main__":
    run_command(main)
