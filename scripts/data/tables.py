"""The tables of what was seen in somebody's data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scripts.data.looking import Findings, Member
from scripts.data.proposal import Proposal
from scripts.reporting import Report, Row

SHOWN = 20  # classes, and samples that cannot be read
EXAMPLES = 3


def reports(proposal: Proposal, findings: Findings) -> Iterator[Report]:
    """Everything for the terminal, in reading order."""
    yield Report(f"{proposal.kind}, for datamodules.{proposal.class_name}", overview(findings))
    yield Report("splits", split_rows(findings))
    if findings.class_names:
        rows = class_rows(findings)
        more = len(rows) - SHOWN
        yield Report("classes", rows[:SHOWN], notes=[f"and {more} classes more"] if more > 0 else [])
    if rows := remarkable(findings):
        yield Report("to look at", rows)
    if findings.corrupt:
        more = len(findings.corrupt) - SHOWN
        rows = [{"cannot be read": why} for why in findings.corrupt[:SHOWN]]
        yield Report("left out with skip_corrupt", rows, notes=[f"and {more} more"] if more > 0 else [])


def overview(findings: Findings) -> list[Row]:
    """What the samples are."""
    total = sum(findings.parts.values())
    of = "" if findings.looked_at == total else f", of which {findings.looked_at} were read"
    values = [("samples", f"{total}{of}"), ("inputs", _shapes(findings)), ("stored as", ", ".join(findings.dtypes))]
    if [*findings.dtypes] == ["text"]:
        values.append(("length", f"{findings.low:g} to {findings.high:g} characters"))
    elif findings.dtypes:
        values.append(("range", f"{findings.low:g} to {findings.high:g}"))
        values.append(("levels", str(findings.levels or "real values")))
    labels = f"{len(findings.class_names)}" if findings.class_names else "none: there are no labels"
    return [{"quantity": name, "value": value} for name, value in [*values, ("classes", labels)]]


def _shapes(findings: Findings) -> str:
    if [*findings.dtypes] == ["text"]:
        return "texts"
    if len(findings.shapes) <= EXAMPLES:
        return ", ".join(f"{list(shape)}" + (f" ({n})" if len(findings.shapes) > 1 else "")
                         for shape, n in findings.shapes.most_common())  # fmt: skip
    (common, count), *_ = findings.shapes.most_common()
    ranges = " x ".join(f"{min(side)} to {max(side)}" for side in zip(*findings.shapes, strict=False))
    return f"{len(findings.shapes)} shapes, {ranges}, most often {list(common)} ({count})"


def split_rows(findings: Findings) -> list[Row]:
    """Each split: how many samples, from where, how they are spread over the classes."""
    rows: list[Row] = []
    for split, count in findings.splits.items():
        part, counts = findings.sources[split], findings.counts[split]
        origin = "its own" if part == split else f"held out of {part}" if part == "train" else f"the {part} part"
        row: Row = {"split": split, "samples": count, "from": origin}
        if findings.class_names:
            row |= {"smallest class": min(counts), "largest class": max(counts)}
        rows.append(row)
    return rows


def class_rows(findings: Findings) -> list[Row]:
    """How often each class occurs in each split."""
    return [
        {"number": number, "class": name} | {split: counts[number] for split, counts in findings.counts.items()}
        for number, name in enumerate(findings.class_names)
    ]


def remarkable(findings: Findings) -> list[Row]:
    """What somebody would want to know before training: damage, repetition, contradiction."""
    rows: list[Row] = []
    if findings.corrupt:
        rows.append({"what": "cannot be read", "samples": len(findings.corrupt), "for example": "see below"})
    for split in findings.splits:
        if twice := findings.within(split):
            rows.append(_row(f"exact duplicates within {split}", len(twice), [[member] for member in twice]))
    for (one, other), pairs in findings.across().items():
        rows.append(_row(f"in {one} and in {other}", len(pairs), pairs))
    if groups := findings.contradicting():
        rows.append(_row("the same input under different labels", sum(map(len, groups)), groups))
    for split, counts in findings.counts.items():
        if findings.class_names and (
            absent := [n for n, count in zip(findings.class_names, counts, strict=True) if not count]
        ):
            rows.append({"what": f"classes without a sample in {split}", "samples": len(absent),
                         "for example": ", ".join(absent[:EXAMPLES])})  # fmt: skip
    return rows


def _row(what: str, count: int, groups: Sequence[Sequence[Member]]) -> Row:
    examples = [" = ".join(member.place for member in group[:2]) for group in groups[:EXAMPLES]]
    return {"what": what, "samples": count, "for example": "; ".join(examples)}
