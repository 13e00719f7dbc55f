"""What was trained and for how long, and what went wrong."""

from __future__ import annotations

from likeness.pages.parts import Cell, Part, Section, Table
from scripts.report.groups import Study
from scripts.report.runs import GOOD, Run

MAIN = ("train/loss", "val/nll", "val/accuracy", "val/bpd", "val/spearman", "similarity/m_cca_f/mean")


def overview(study: Study) -> Section:
    """A row for each run."""
    metrics = [key for key in MAIN if any(key in run.metrics.last for run in study.runs)]
    heads = ["run", "state", "model", "data", "seed", "steps", "time", "steps a second", *metrics]
    rows = [[*_row(run), *(run.metrics.last.get(key) for key in metrics)] for run in study.runs]
    kept = [n for n, head in enumerate(heads) if head == "run" or any(row[n] not in (None, "") for row in rows)]
    table = Table(
        "runs",
        "Runs",
        [heads[n] for n in kept],
        [[row[n] for n in kept] for row in rows],
        "A click on a heading sorts. Metrics: last values logged; time: h:mm:ss of all segments that had an end.",
    )
    return Section("Overview", [table, *_files(study)], _about(study))


def _about(study: Study) -> str:
    runs, groups = len(study.runs), len(study.groups)
    if not study.repeated:
        return "" if runs == 1 else f"{runs} runs of different configurations."
    many = "one configuration" if groups == 1 else f"{groups} configurations"
    return f"{runs} runs of {many}; those that differ in their seed alone are one line in the figures, with a band."


def _row(run: Run) -> list[Cell]:
    seconds, steps = run.seconds, run.steps
    model, data = ((run.config.get(part) or {}).get("class_path", "").rpartition(".")[2] for part in ("model", "data"))
    seed = run.options.get("seed_everything")
    rate = steps / seconds if steps and seconds else None
    return [run.name, run.state, model, data, seed, steps, duration(seconds), rate]


def _files(study: Study) -> list[Part]:
    """The checkpoints and exported weights that there are; none of them is opened."""
    rows: list[list[Cell]] = [
        [run.name, str(path.relative_to(run.path)), _size(path.stat().st_size)]
        for run in study.runs
        for path in run.checkpoints()
        if path.is_file()
    ]
    return [Table("checkpoints", "Checkpoints", ["run", "file", "size"], rows, folded=True)] if rows else []


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def duration(seconds: float | None) -> str:
    """A length of time as hours, minutes and seconds."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def faults(study: Study) -> Section | None:
    """Segments that did not end well, files that could not be read, numbers that are not finite."""
    rows: list[list[Cell]] = [[run.name, "end", run.state] for run in study.runs if not run.fine]
    for run in study.runs:
        earlier = [str(segment.get("why")) for segment in run.segments[:-1]]
        rows += [[run.name, f"segment {n}", why] for n, why in enumerate(earlier, 1) if not why.startswith(GOOD)]
        rows += [[run.name, "files", note] for note in run.notes]
    if not rows:
        return None
    table = Table("faults", "Faults", ["run", "where", "what"], rows)
    return Section("Faults", [table], "Runs that ended badly, and what is missing from their directories.")
