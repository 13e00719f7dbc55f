"""Causal language models compared on texts, as the command names them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from scripts.inputs import choose_device, default_data, load_data, names_a_library_model, names_a_model

if TYPE_CHECKING:
    from likeness.adapters.causal_scorers import TokenScorer
    from likeness.adapters.texts import Texts
    from likeness.comparisons.language_pairs import LanguageComparisons
    from likeness.language.answer import LanguageComparison
    from scripts.reporting import Report

LENS = 2048  # positions that are looked at through the lens: each costs all logits once for each block
MEASURES = ("kl", "m_cca")  # of models on other data, where none are named
OPTIONS = (  # which say nothing without texts
    *("column", "positions", "prefix", "rows", "length", "stride"),
    *("batch_size", "shared_tokens", "budget", "lens", "seed"),
)


def add_arguments(parser: ArgumentParser) -> None:
    """The options of texts, which mean what they mean to ``likeness hubness lm``."""
    add = parser.add_argument_group("language models on texts").add_argument
    add("--texts", type=str | None, help="Texts (.txt, .csv, .tsv, .parquet), or docstrings: models are hf:NAME, ...")
    add("--column", type=str | None, help="The texts within FILE, where it does not name them in a usual way.")
    add("--positions", type=int, default=16_384, help="How many contexts.")
    add("--prefix", type=int | str, default="separator", help="Before each text: none, bos, separator, or an id.")
    add("--rows", type=str, default="tokens", help="Rows of the head without a token left out (tokens), or not (all).")
    add("--length", type=int | None, help="Tokens of a window; by default what all models take, at most 1024.")
    add("--stride", type=int | None, help="Tokens from one window to the next; by default its length.")
    add("--batch_size", type=int, default=16, help="Windows that a model sees at once.")
    add("--shared_tokens", action="store_true", help="Where tokenizers differ, compare on the tokens that both have.")
    add("--budget", type=int | None, help="Tokens whose row of d_LLV's term 1 is computed; by default all it takes.")
    add("--lens", action="store_true", help="What each model would predict without its last blocks, too.")
    add("--seed", type=int, default=0, help="Seed of the choice of texts, and of what is drawn.")


def run(options: Namespace) -> None:
    """Read models and texts, compare, print, save. Raises what names the option, model, file or text that is wrong."""
    from likeness.comparisons.language import compare_on_texts, language_models

    texts, device, folder = _texts(options), choose_device(options.device), Path(options.out)
    models = language_models([model for path in options.models for model in _models(path)], texts)
    publish(compare_on_texts(models, texts, budget=options.budget, device=device), folder)
    if options.lens:
        table = lens_table(models, replace(texts, positions=min(texts.positions, LENS)))
        table.show()
        print(f"likeness: wrote {table.write(folder / 'lens.csv')}")


def _texts(options: Namespace) -> Texts:
    from likeness.adapters.texts import Texts
    from scripts.hubness.files import Source
    from scripts.hubness.points import texts_of

    return Texts(
        texts_of(Source(options.texts, texts=options.column)),
        positions=options.positions,
        prefix=options.prefix,
        rows=options.rows,
        length=options.length,
        stride=options.stride,
        batch_size=options.batch_size,
        shared_tokens=options.shared_tokens,
        seed=options.seed,
        name=options.texts,
    )


def lens_table(models: Sequence[TokenScorer], texts: Texts) -> Report:
    """The logit lens of each model, a row for each place of its residual stream."""
    from likeness.comparisons.language_layers import logit_lens
    from scripts.reporting import Report

    rows = [{"model": model.name, **layer.row()} for model in models for layer in logit_lens(model, texts)]
    return Report(f"predictions behind so many blocks, nats, of at most {texts.positions:,} positions", rows)


def _models(path: str) -> list[str | TokenScorer]:
    """The name of a model of others; those of a run or checkpoint with the tokenizer that it holds."""
    if names_a_library_model(path) or not names_a_model(path):
        return [path]
    from lightning_modules.checkpoints import load_softmax_models, short_names
    from likeness.adapters.causal_models import read_causal
    from likeness.adapters.decoders import decoder_in

    models = load_softmax_models(path)
    found: list[str | TokenScorer] = []
    for name, (_, model) in zip(short_names([own for own, _ in models]), models, strict=True):
        if decoder_in(model) is None:  # type: ignore[arg-type]
            raise ValueError(f"{path} holds a {type(model).__name__}, which is no language model: --texts is for these")
        known = getattr(model, "tokenizer", None) is not None
        read = read_causal(model, tokenizer=None if known else _of_data(path))  # type: ignore[arg-type]
        read.name = name
        found.append(read)
    return found


def _of_data(path: str) -> Any:
    """The tokenizer of a run's own data, for checkpoints that were written before they held theirs."""
    data = load_data(default_data(path))
    data.prepare_data()
    return getattr(data, "tokenizer", None)


def names_a_language_model(path: str) -> bool:
    """Whether a path or name is that of a causal language model of others, as far as its own files say so."""
    if path.endswith(".gguf"):
        return True
    config = Path(path.removeprefix("hf:"), "config.json")
    try:
        kinds = json.loads(config.read_text(encoding="utf-8")).get("architectures") or ()
    except (OSError, ValueError):
        return False
    return any(str(kind).endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds)


def publish(found: LanguageComparison | LanguageComparisons, folder: Path) -> None:
    """Print the tables, write them, every number and the figures into ``folder``, and name what was written."""
    from rich.console import Console

    from likeness.comparisons.language_tables import table
    from likeness.comparisons.tables import WIDTH
    from likeness.language.answer import LanguageComparison

    console = Console()
    console = console if console.is_terminal else Console(width=WIDTH)
    for one in (table(found),) if isinstance(found, LanguageComparison) else found.tables():
        console.print(one)
    for path in found.save(folder):
        print(f"likeness: wrote {path}")
