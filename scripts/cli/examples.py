"""A line to run for each command and subcommand, which its ``--help`` ends with.

They use what is in the repository and what ``make demo`` or an earlier line has written; names in capitals are yours.
"""

EXAMPLES = {
    "train": "fit --config configs/experiment/demo.yaml --run_dir runs/a",
    "train fit": "--config configs/experiment/docstrings_encoder.yaml --run_dir runs/encoder --auto_resume",
    "train validate": "--config runs/demo/config.yaml --run_dir runs/demo",
    "train test": "--config runs/demo/config.yaml --run_dir runs/demo",
    "train predict": "--config runs/demo/config.yaml --run_dir runs/demo",
    "evaluate": "runs/demo_diffenc --steps 10,100,inf",
    "sample": "runs/demo_diffenc --n 16",
    "compress": "runs/demo_diffenc runs/samples/samples.npz runs/digits.stream --key samples",
    "decompress": "runs/demo_diffenc runs/digits.stream runs/digits.npy",
    "data": "PICTURES --out configs/data/mine.yaml",
    "data tokenize": "docs --pattern *.md --out runs/tokens",
    "compare": "runs/demo --measures kl m_cca linear_cka --nulls 200",
    "study": "kl_to_zero",
    "study kl_to_zero": "--out runs/kl_to_zero",
    "study constructed": "--out runs/constructed",
    "study width": "--small",
    "study loss_difference": "runs/demo --data configs/data/digits.yaml",
    "study cosines": "runs/demo#0 --pair 3 8",
    "study diffenc_vs_vdm": "--small",
    "study hubness_grid": "--data docstrings",
    "study frontier": "--data digits --arms a h i --seeds 1 --steps 0.01",
    "study language": "--small",
    "study sentence_pairs": "runs/encoder --data configs/data/docstring_pairs.yaml",
    "hubness": "analyse docstrings",
    "hubness analyse": "docstrings --k 10 --top 5",
    "hubness reduce": "docstrings --method f_norm mutual_proximity",
    "hubness compare": "docstrings --methods f_norm csls",
    "hubness lm": "hf:HuggingFaceTB/SmolLM2-135M --texts docstrings",
    "inspect_head": "runs/demo#3 --pair 3 8",
    "export_encoder": "runs/encoder runs/sentence_transformer",
    "import_published": "close-dist STATE_DICT.pt --out runs/published",
    "import_published close-dist": "STATE_DICT.pt --out runs/published",
    "import_published diffenc": "--params PARAMS.npz --model-config CONFIG.json --out runs/diffenc.ckpt",
    "import_published mulan": "--params PARAMS.npz --model-config CONFIG.json --prediction v --out runs/mulan.ckpt",
    "sweep": "configs/sweep/seeds.yaml --index 3 --dry_run",
    "dashboard": "runs/demo",
    "watch": "runs/demo runs/demo_diffenc",
    "report": "runs/demo runs/demo_diffenc",
    "completion": "bash",
    "doctor": "--json",
    "bench": "loss",
    "bench siblings": "--out runs/bench.json",
    "bench loss": "--network mlp",
    "bench callbacks": "--threads 1",
    "bench similarity": "--threads 1",
    "bench diffusion": "--threads 1",
    "bench layers": "--threads 1",
    "bench hubness": "--threads 1",
    "bench language": "--threads 1",
}


def example(command: str) -> str | None:
    """The line of a command, ``likeness hubness lm``, as a parser calls it; None where there is none."""
    words = command.replace("[options] ", "")
    arguments = EXAMPLES.get(words.removeprefix("likeness "))
    return None if arguments is None else f"{words} {arguments}"
