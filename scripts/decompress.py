"""Images from a stream that ``scripts.compress`` wrote: ``python -m scripts.decompress RUN STREAM IMAGES.npy``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from scripts.cli.entry_point import Parser, run_command
from scripts.inputs import choose_device


def main(argv: Sequence[str] | None = None) -> int:
    """Read, decode, write; raises what went wrong."""
    arguments = build_parser().parse_args(argv)
    import numpy as np
    import torch

    from scripts.compress import load_diffusion
    from scripts.compress.stream_file import arithmetic, read_stream
    from scripts.reporting import write_array

    path, out = Path(arguments.stream), Path(arguments.out)
    if out.suffix != ".npy":
        raise ValueError(f"the images are written to a .npy file, got {out}")
    model = load_diffusion(arguments.model, arguments.weights, choose_device(arguments.device)).diffusion
    coder, coded, written_by = read_stream(path, model)
    if isinstance(threads := written_by.get("threads"), int):
        torch.set_num_threads(threads)
    try:
        images = coder.decode(coded)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; written by {written_by}, read by {arithmetic(model)}") from error
    write_array(out, images.cpu().numpy().astype(np.uint8 if model.levels <= 256 else np.int64))
    print(f"likeness: wrote {out}: {len(images)} images, bit for bit")
    return 0


def build_parser() -> Parser:
    """The command line of this command."""
    parser = Parser(
        prog="likeness decompress",
        description="Read images from a stream that likeness compress wrote, with the same model.",
        epilog="It takes the number of threads that wrote the stream.",
    )
    add = parser.add_argument
    add("model", metavar="RUN_OR_CKPT", help="The run or checkpoint that wrote the stream.")
    add("stream", metavar="STREAM", help="The file that compress wrote.")
    add("out", metavar="IMAGES.npy", help="The file to write: grey levels [N, ...].")
    add("--weights", type=Literal["ema", "raw"], default="ema", help="Averages over steps (ema), or the last (raw).")
    add("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="Where it is computed.")
    return parser


if __name__ == "__main__":
    run_command(main)
