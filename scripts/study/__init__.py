"""The papers' experiments: ``python -m scripts.study {kl_to_zero,constructed,width,...}``; ``--help`` lists them."""

from __future__ import annotations

from collections.abc import Sequence

from scripts.cli.entry_point import Parser
from scripts.cli.functions import Subcommand, parse_call

# A new study is a module with a function ``run``, whose arguments are its options, and one line here.
STUDIES = {
    name: Subcommand(f"scripts.study.{name}.run", summary)
    for name, summary in {
        "kl_to_zero": "KL goes to zero, representations stay apart (Table 1)",
        "constructed": "Representations against d_LLV, with both bounds (Fig 16)",
        "width": "Wider networks are more alike (Fig 3, 17, 18): trains, resumes",
        "loss_difference": "Near losses do not mean like representations (Fig 5)",
        "cosines": "One model with two labels at any cosine (paper B)",
        "diffenc_vs_vdm": "VDM, DiffEnc-nt and DiffEnc, and variance ratios (paper D): trains, resumes",
        "frontier": "What ingredients of lower bounds bring to VDM and DiffEnc: trains, resumes",
        "hubness_grid": "What reductions of hubness do to hubness and to k-NN error (paper C): trains, resumes",
        "language": "Sibling language models over training, or one and its copies: trains, resumes",
        "sentence_pairs": "What reductions of hubness do to sentence similarity (STS)",
    }.items()
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one study; raises what went wrong."""
    parser = Parser(prog="likeness study", description="Run an experiment of the papers: its table and its figure.")
    call = parse_call(parser, STUDIES, argv)
    call.function(*call.arguments, **call.options)
    return 0
