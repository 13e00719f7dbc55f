"""Several language models compared at the same positions: what is said of all pairs, and of each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from likeness.comparisons.language_tables import quantities, save, shown
from likeness.comparisons.tables import recorded
from likeness.figures.output import write_csv
from likeness.files.writing import replacing

if TYPE_CHECKING:
    from pandas import DataFrame

    from likeness.language.answer import LanguageComparison

OF_MODELS = {
    "nll": "cross-entropy, nats a token",
    "perplexity": "perplexity",
    "accuracy": "next-token accuracy",
    "entropy": "entropy, nats",
}
IN_TABLE = {
    "kl_12": "KL(1||2)",
    "kl_21": "KL(2||1)",
    "js": "JS",
    "agreement": "agreement",
    "term_1": "term 1",
    "d_svd_typical": "d_SVD(f), random",
    "d_logit_weighted_normalised": "d_logit^2 by frequency",
    "m_cca_f": "m_CCA(f)",
    "linear_cka_f": "CKA(f)",
}


@dataclass(frozen=True)
class LanguageComparisons(Mapping[tuple[int, int], "LanguageComparison"]):
    """All pairs of P language models at the same positions, by the numbers (i, j) of their models, i < j.

    ``found[0, 2]``, or ``found["a", "c"]`` by names, is the :class:`likeness.LanguageComparison` of a pair, which has
    all numbers with their errors and bounds. As text, and in a notebook, it is a table of models and one of pairs.
    """

    names: Sequence[str]
    pairs: Mapping[tuple[int, int], LanguageComparison] = field(repr=False)

    def __getitem__(self, pair: tuple[int | str, int | str]) -> LanguageComparison:
        """Raises KeyError with the pairs that there are."""
        i, j = (self.names.index(one) if isinstance(one, str) and one in self.names else one for one in pair)
        if (i, j) not in self.pairs:
            known = ", ".join(f"({self.names[a]!r}, {self.names[b]!r})" for a, b in self.pairs)
            raise KeyError(f"{pair} is no pair of models that was compared: {known}")
        return self.pairs[i, j]  # type: ignore[index]

    def __iter__(self) -> Any:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def model_rows(self) -> list[dict[str, Any]]:
        """What is said of each model alone."""
        rows = []
        for number, name in enumerate(self.names):
            pair = next(pair for pair in self.pairs if number in pair)
            place = pair.index(number) + 1
            rows.append({"model": name, **{one: getattr(self.pairs[pair], f"{one}_{place}") for one in OF_MODELS}})
        return rows

    def rows(self) -> list[dict[str, Any]]:
        """A row for each pair, with all quantities that any pair has and their standard errors."""
        wanted = dict.fromkeys(one.name for found in self.pairs.values() for one in quantities(found))
        rows = []
        for (i, j), found in self.pairs.items():
            row: dict[str, Any] = {"model_1": self.names[i], "model_2": self.names[j]}
            for name in wanted:
                row |= {name: getattr(found, name), f"{name}_error": found.errors.get(name)}
            rows.append(row | {"undefined": "; ".join(dict.fromkeys(found.undefined.values()))})
        return rows

    def to_frame(self) -> DataFrame:
        """A pandas DataFrame of :meth:`rows`. Raises ImportError where pandas is not installed."""
        from pandas import DataFrame

        return DataFrame(self.rows())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"models": self.model_rows(), "pairs": [found.to_dict() for found in self.pairs.values()]}

    def tables(self) -> tuple[Table, Table]:
        """Of the models, and of the pairs; the notes of all pairs stand under the second."""
        first = next(iter(self.pairs.values()))
        read = f"{first.positions:,} positions of {first.data}, each text after {first.prefix}"
        notes = dict.fromkeys(note for found in self.pairs.values() for note in found.notes)
        undefined = dict.fromkeys(reason for found in self.pairs.values() for reason in found.undefined.values())
        caption = "\n".join([*notes, *(f"without some numbers: {reason}" for reason in undefined)])
        models = Table("model", title=f"{read}; {first.labels:,} tokens", title_justify="left")
        for label in OF_MODELS.values():
            models.add_column(label, justify="right")
        for row in self.model_rows():
            name, *values = row.values()
            models.add_row(name, *map(shown, values))
        pairs = Table("1", "2", title_justify="left", caption=caption or None, caption_justify="left")
        known = [name for name in IN_TABLE if any(getattr(found, name) is not None for found in self.pairs.values())]
        for name in known:
            pairs.add_column(IN_TABLE[name], justify="right")
        for (i, j), found in self.pairs.items():
            pairs.add_row(self.names[i], self.names[j], *(shown(getattr(found, name)) for name in known))
        return models, pairs

    def save(self, folder: str | Path) -> list[Path]:
        """``models.csv``, ``comparison.csv`` with a row for each pair, ``comparison.json``, and a page, ``index.html``.

        Each pair has a folder, called by the numbers of its models, as 0-1. Answers what was written.
        """
        from likeness.pages.comparison import table, write_comparison

        folder = Path(folder).expanduser()
        written = []
        for name, lines in (("models.csv", self.model_rows()), ("comparison.csv", self.rows())):
            written.append(write_csv(folder / name, list(lines[0]), (line.values() for line in lines)))
        with replacing(folder / "comparison.json") as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        written.append(folder / "comparison.json")
        for (i, j), found in self.pairs.items():
            written += save(found, folder / f"{i}-{j}")
        parts = [table("models", "Models", self.model_rows()), table("pairs", "Pairs", self.rows())]
        return written + write_comparison(folder, ", ".join(self.names), "Language models on texts", parts)

    def __str__(self) -> str:
        return "\n".join(str(recorded(table).export_text()).rstrip() for table in self.tables())

    def _repr_html_(self) -> str:
        parts = (recorded(table) for table in self.tables())
        return "".join(str(part.export_html(inline_styles=True, code_format="<pre>{code}</pre>")) for part in parts)
