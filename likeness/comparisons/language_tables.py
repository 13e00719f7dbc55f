"""What each number of two compared language models is: its words, unit, bounds, error, and how exact it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.table import Table
from rich.text import Text

from likeness.comparisons.tables import recorded
from likeness.figures.output import save_formats, write_csv
from likeness.files.writing import replacing

if TYPE_CHECKING:
    from likeness.language.answer import LanguageComparison

MANY = 10  # quantities that are undefined for one reason
ENOUGH = 10  # times as many positions as dimensions, for an m_CCA that stands for itself
MEAN, EXACT, FOUND, DRAWN = "mean", "exact", "found", "drawn"
KINDS = {
    MEAN: "mean over positions, ± its standard error by documents",
    EXACT: "exact for these positions",
    FOUND: "the best that a search found, within its bounds",
    DRAWN: "mean over random label subsets, ± their standard deviation",
}
Bounds = Callable[["LanguageComparison"], tuple[float | None, float | None]]


class Quantity(NamedTuple):
    """A line of the table."""

    name: str  # of the field
    label: str
    unit: str
    kind: str
    alike: str = ""  # which way models are alike
    bounds: Bounds | None = None
    error: str | None = None  # the field with its error, where that is no standard error
    remark: Callable[[LanguageComparison], str] = lambda _: ""


def quantities(found: LanguageComparison) -> list[Quantity]:
    """Those that are there, or are undefined with a reason; what is said of left-out tokens only where some are."""
    known = [one for one in QUANTITIES if getattr(found, one.name) is not None or one.name in found.undefined]
    return [one for one in known if one.name not in OF_LEFT_OUT or (found.mass_1, found.mass_2) != (1.0, 1.0)]


def rows(found: LanguageComparison) -> list[dict[str, Any]]:
    """A row for each quantity, with plain values."""
    answer = []
    for one in quantities(found):
        value = getattr(found, one.name)
        low, high = (None, None) if one.bounds is None or value is None else one.bounds(found)
        error = found.errors.get(one.name) if one.error is None else getattr(found, one.error)
        kind = EXACT if one.kind == FOUND and low is not None and low == high else one.kind
        row = {"quantity": one.name, "meaning": one.label, "value": value, "low": low, "high": high}
        row |= {"error": error, "unit": one.unit, "kind": kind, "alike": one.alike}
        answer.append(row | {"undefined": found.undefined.get(one.name)})
    return answer


def table(found: LanguageComparison) -> Table:
    """All of them in words."""
    lines = Table(title=title(found), title_justify="left", caption="\n".join(notes(found)), caption_justify="left")
    for name, justify in (("", "left"), ("value", "right"), ("±", "right"), ("", "left"), ("", "left")):
        lines.add_column(name, justify=justify)  # type: ignore[arg-type]
    lines.columns[3].header, lines.columns[4].header = "which is", "alike if"
    lines.columns[1].no_wrap = lines.columns[2].no_wrap = True
    together = undefined_together(found)
    for one, row in zip(quantities(found), rows(found), strict=True):
        if row["undefined"] in together:
            continue
        unit = f", {row['unit']}" if row["unit"] else ""
        kind = f"undefined: {row['undefined']}" if row["value"] is None else _kind(row, one.remark(found))
        cells = (f"{row['meaning']}{unit}", shown(row["value"]), shown(row["error"]), kind, row["alike"])
        if one.name in SECTIONS:
            lines.add_section()
        lines.add_row(*(Text(cell) for cell in cells))
    return lines


def _kind(row: dict[str, Any], remark: str) -> str:
    low, high = row["low"], row["high"]
    within = ""
    if row["kind"] == FOUND:
        between = f"in [{shown(low)}, {shown(high)}]" if low is not None and high is not None else ""
        within = f", {between or 'at least that of all inputs'}"
    return f"{row['kind']}{within}{', ' * bool(remark)}{remark}"


def undefined_together(found: LanguageComparison) -> dict[str, list[str]]:
    """By reason, the words of the quantities that it leaves undefined, where they are many: for a note."""
    reasons: dict[str, list[str]] = {}
    for one in quantities(found):
        if one.name in found.undefined:
            reasons.setdefault(found.undefined[one.name], []).append(one.label)
    return {reason: labels for reason, labels in reasons.items() if len(labels) >= MANY}


def title(found: LanguageComparison) -> str:
    """The models, how many positions of what, and what the texts began with."""
    documents = f" in {found.documents:,} documents" if found.documents else ""
    before = f", each text after {found.prefix}" if found.prefix else ""
    shared = " of both (token events differ)" if found.bits_per_byte_1 is not None else ""
    names = f"{found.names[0]} (1) and {found.names[1]} (2)"
    return f"{names}: {found.positions:,} positions{documents} of {found.data}{before}; {found.labels:,} tokens{shared}"


def notes(found: LanguageComparison) -> list[str]:
    """What stands under the table."""
    kinds = dict.fromkeys(row["kind"] for row in rows(found) if row["value"] is not None)
    lines = [f"{kind}: {KINDS[kind]}" for kind in kinds]
    if found.groups:
        lines.append(f"± of what is no mean: by the jackknife over {found.groups} groups of documents")
    lines += [f"{reason}: without {', '.join(labels)}" for reason, labels in undefined_together(found).items()]
    lines.append(f"f1 and f2 span {found.ranks[0]} and {found.ranks[1]} dimensions, in which all is measured")
    if found.positions < (enough := ENOUGH * max(found.ranks)):
        lines.append(
            f"m_CCA(f) of fewer than {enough:,} positions is raised by chance: see what unrelated models score"
        )
    for group in found.equal_labels[:3]:
        lines.append(
            f"equal in both heads, compared once: {', '.join(found.tokens.get(one, str(one)) for one in group[:8])}"
        )
    return [*lines, *found.notes]


def shown(value: float | None) -> str:
    """Four digits; empty for None."""
    return "" if value is None else f"{value:.4g}"


def as_text(found: LanguageComparison) -> str:
    """The table as text."""
    return str(recorded(table(found)).export_text()).rstrip()


def as_html(found: LanguageComparison) -> str:
    """The table as HTML that stands on its own."""
    return str(recorded(table(found)).export_html(inline_styles=True, code_format="<pre>{code}</pre>"))


def save(found: LanguageComparison, folder: Path) -> list[Path]:
    """``comparison.json``, ``comparison.csv`` and ``comparison.{png,pdf}``, in this order."""
    lines = rows(found)
    with replacing(folder / "comparison.json") as temporary:
        temporary.write_text(json.dumps(found.to_dict(), indent=2) + "\n", encoding="utf-8")
    written = [folder / "comparison.json"]
    written.append(write_csv(folder / "comparison.csv", list(lines[0]), (line.values() for line in lines)))
    return [*written, *save_formats(found.plot(), folder, "comparison")]


def _term_1(found: LanguageComparison) -> tuple[float | None, float | None]:
    return found.term_1_lower, found.term_1


def _max_d_svd(found: LanguageComparison) -> tuple[float | None, float | None]:
    return found.max_d_svd, max(found.max_d_svd or 0.0, found.certificate or 0.0)  # up to rounding


def _at_most(found: LanguageComparison) -> tuple[float | None, float | None]:
    return None, None


def _choice(found: LanguageComparison) -> str:
    pivot, left = (found.tokens.get(one, str(one)) if one is not None else "" for one in (found.pivot, found.left_out))
    return f"pivot {pivot}, without {left}"


def _noise(found: LanguageComparison) -> str:
    return f"unrelated models {shown(found.m_cca_f_of_noise)}"


OF_LEFT_OUT = ("mass_1", "mass_2", "log_mass_1", "log_mass_2", "kl_12_with_rest", "kl_21_with_rest")
SECTIONS = ("kl_12", "term_1", "d_logit", "m_cca_f")  # a line is drawn above these
LESS, MORE = "smaller", "larger"
QUANTITIES = (
    Quantity("nll_1", "cross-entropy of 1", "nats a token", MEAN),
    Quantity("nll_2", "cross-entropy of 2", "nats a token", MEAN),
    Quantity("perplexity_1", "perplexity of 1", "", EXACT),
    Quantity("perplexity_2", "perplexity of 2", "", EXACT),
    Quantity("bits_per_byte_1", "bits per byte of 1, of whole texts", "bits", EXACT),
    Quantity("bits_per_byte_2", "bits per byte of 2, of whole texts", "bits", EXACT),
    Quantity("accuracy_1", "next-token accuracy of 1", "", MEAN),
    Quantity("accuracy_2", "next-token accuracy of 2", "", MEAN),
    Quantity("entropy_1", "entropy of 1", "nats", MEAN),
    Quantity("entropy_2", "entropy of 2", "nats", MEAN),
    Quantity("mass_1", "probability of these tokens, 1", "", MEAN),
    Quantity("mass_2", "probability of these tokens, 2", "", MEAN),
    Quantity("log_mass_1", "its logarithm, 1", "nats", MEAN),
    Quantity("log_mass_2", "its logarithm, 2", "nats", MEAN),
    Quantity("kl_12", "KL(1 || 2)", "nats", MEAN, LESS),
    Quantity("kl_21", "KL(2 || 1)", "nats", MEAN, LESS),
    Quantity("kl_12_with_rest", "KL(1 || 2), all other tokens as one", "nats", MEAN, LESS),
    Quantity("kl_21_with_rest", "KL(2 || 1), all other tokens as one", "nats", MEAN, LESS),
    Quantity("variance_12", "variance of the logits' difference under 1", "nats^2", MEAN, LESS),
    Quantity("variance_21", "variance of the logits' difference under 2", "nats^2", MEAN, LESS),
    Quantity("js", "Jensen-Shannon divergence", "nats", MEAN, LESS),
    Quantity("total_variation", "total variation", "", MEAN, LESS),
    Quantity("agreement", "same likeliest token", "", MEAN, MORE),
    Quantity("term_1", "d_LLV, term 1: labels", "", FOUND, LESS, _term_1, remark=_choice),
    Quantity("term_3", "d_LLV, term 3: spreads of labels", "", EXACT, LESS),
    Quantity("term_2", "d_LLV, term 2: inputs", "", FOUND, LESS, _at_most),
    Quantity("term_4", "d_LLV, term 4: spreads of inputs", "", FOUND, LESS, _at_most),
    Quantity("d_svd_typical", "d_SVD(f) of random tokens", "", DRAWN, LESS, error="d_svd_typical_deviation"),
    Quantity("d_svd_frequent", "d_SVD(f) of frequent tokens", "", DRAWN, LESS, error="d_svd_frequent_deviation"),
    Quantity("max_d_svd", "largest d_SVD(f)", "", FOUND, LESS, _max_d_svd),
    Quantity("d_logit", "d_logit, all tokens", "nats", EXACT, LESS),
    Quantity("d_logit_normalised", "d_logit^2 over that of 1's logits", "", EXACT, LESS),
    Quantity("d_logit_weighted", "d_logit, tokens by frequency", "nats", EXACT, LESS),
    Quantity("d_logit_weighted_normalised", "its square over that of 1's logits", "", EXACT, LESS),
    Quantity("d_rep_12", "d_rep, f1 from f2", "", EXACT, LESS),
    Quantity("d_rep_21", "d_rep, f2 from f1", "", EXACT, LESS),
    Quantity("m_cca_f", "m_CCA(f)", "", EXACT, MORE, remark=_noise),
    Quantity("m_cca_g", "m_CCA(g)", "", EXACT, MORE),
    Quantity("linear_cka_f", "linear CKA(f)", "", EXACT, MORE),
)
