"""What was run: configurations and their differences, each start, and what it ran on."""

from __future__ import annotations

from likeness.pages.parts import Cell, Listing, Part, Section, Table
from scripts.report.groups import Study, differences
from scripts.report.runs import Tree

LISTED = 12  # configurations that are shown whole
KEYS = 40  # differences that have a column


def configuration(study: Study) -> Section | None:
    """The differences between runs as a table, and whole configurations."""
    parts: list[Part] = []
    told = differences([run for run in study.runs if run.config])
    if told:
        keys = list(told)[:KEYS]
        named = [run for run in study.runs if run.config]
        rows: list[list[Cell]] = [[run.name, *(told[key][n] for key in keys)] for n, run in enumerate(named)]
        more = f" {len(told) - KEYS} more keys differ." if len(told) > KEYS else ""
        caption = f"Only what differs; all else is the same in all runs.{more}"
        parts.append(Table("differences", "Differences", ["run", *_short(keys)], rows, caption))
    for group in study.groups[:LISTED]:
        run = group.runs[0]
        if run.config_text:
            parts.append(Listing(f"config_{run.name}", f"config.yaml of {run.name}", run.config_text))
    return Section("Configuration", parts) if parts else None


def _short(keys: list[str]) -> list[str]:
    """Keys without the words that say nothing, as long as they stay apart."""
    short = [key.replace("init_args.", "") for key in keys]
    return short if len(set(short)) == len(short) else keys


def segments(study: Study) -> Section | None:
    """A row for each start of each run."""
    columns = ("start", "end", "first_step", "last_step", "why", "host", "world_size", "num_nodes", "device")
    rows = [
        [run.name, number, *(_cell(segment.get(name)) for name in columns)]
        for run in study.runs
        for number, segment in enumerate(run.segments, 1)
    ]
    if not rows:
        return None
    heads = ["run", "segment", *(name.replace("_", " ") for name in columns)]
    about = "Each start of a run: where, from which step to which, and why it ended."
    return Section("Segments", [Table("segments", "Segments", heads, rows)], about)


def environment(study: Study) -> Section | None:
    """Versions and code, a row for each combination and the runs that had it."""
    found: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run in study.runs:
        for segment in run.segments:
            names = found.setdefault(tuple(_versions(segment).items()), [])
            if run.name not in names:
                names.append(run.name)
    if not found:
        return None
    columns = list(dict.fromkeys(name for pairs in found for name, _ in pairs))
    rows: list[list[Cell]] = [
        [*(dict(pairs).get(name) for name in columns), _listed(names)] for pairs, names in found.items()
    ]
    return Section("Environment", [Table("environment", "Versions and code", [*columns, "runs"], rows)])


def _versions(segment: Tree) -> dict[str, str]:
    versions = segment.get("versions")
    told = versions if isinstance(versions, dict) else {}
    return {**{str(name): str(value) for name, value in told.items()}, "code": str(segment.get("git") or "unknown")}


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _cell(value: object) -> Cell:
    return value if value is None or isinstance(value, str | int | float) else str(value)
