"""Each sample of somebody's data, read once: its shape and levels, whether it is whole, whether it is there twice."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.own.datamodule import OwnDataModule
from datamodules.own.labels import classes
from datamodules.own.samples import SampleError, Source
from datamodules.splits import PARTS, SplitName
from likeness.progress import tracked
from scripts.data.proposal import Proposal

BATCH = 64  # rows that are read at once


class Seen(NamedTuple):
    """What one sample is; ``why`` it could not be read, and nothing else, where it could not."""

    why: str | None
    digest: bytes = b""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    low: float = 0.0
    high: float = 0.0
    grey: bool = False


class Member(NamedTuple):
    """A sample among those that are the same."""

    split: str
    y: int
    place: str


@dataclass
class Findings:
    """What was seen, over all parts; ``looked_at`` of the ``samples``."""

    class_names: Sequence[str]
    parts: dict[SplitName, int] = field(default_factory=dict)  # samples of each part that is there
    splits: dict[SplitName, int] = field(default_factory=dict)  # samples of each split that can be made
    sources: dict[SplitName, SplitName] = field(default_factory=dict)  # the part that a split's samples stand in
    counts: dict[SplitName, list[int]] = field(default_factory=dict)  # of each class, by split
    shapes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    dtypes: Counter[str] = field(default_factory=Counter)
    low: float = float("inf")
    high: float = float("-inf")
    looked_at: int = 0
    coloured: int = 0
    corrupt: list[str] = field(default_factory=list)
    groups: dict[bytes, list[Member]] = field(default_factory=lambda: defaultdict(list))

    @property
    def levels(self) -> int | None:
        """Grey levels of uint8, one more than the largest value where that is small; None for real values and texts."""
        if [*self.dtypes] != ["uint8"]:
            return None
        return int(self.high) + 1 if 0 < self.high < 128 else 256

    @property
    def is_grey_throughout(self) -> bool:
        """Whether all pictures are of three channels that are the same."""
        three = bool(self.shapes) and all(len(shape) == 3 and shape[0] == 3 for shape in self.shapes)
        return three and self.coloured == 0 and self.decoded

    decoded: bool = False  # from pictures, which can be had in grey

    def add(self, seen: Seen, member: Member) -> None:
        """Take one sample in."""
        self.looked_at += 1
        if seen.why is not None:
            self.corrupt.append(seen.why)
            return
        self.shapes[seen.shape] += 1
        self.dtypes[seen.dtype] += 1
        self.low, self.high = min(self.low, seen.low), max(self.high, seen.high)
        self.coloured += not seen.grey
        self.groups[seen.digest].append(member)

    def repeated(self) -> list[list[Member]]:
        """Samples that are the same in every number, group by group."""
        return [group for group in self.groups.values() if len(group) > 1]

    def within(self, split: str) -> list[Member]:
        """The samples of a split that another one of it repeats, without the first of each."""
        return [member for group in self.repeated() for member in [one for one in group if one.split == split][1:]]

    def across(self) -> dict[tuple[str, str], list[tuple[Member, Member]]]:
        """Samples of one split that stand in another one, too, for each two splits; one pair a group."""
        answer: dict[tuple[str, str], list[tuple[Member, Member]]] = {}
        for group in self.repeated():
            of = {member.split: member for member in reversed(group)}
            for pair in combinations([part for part in PARTS if part in of], 2):
                answer.setdefault(pair, []).append((of[pair[0]], of[pair[1]]))
        return answer

    def contradicting(self) -> list[list[Member]]:
        """Groups of the same input under different labels."""
        return [group for group in self.repeated() if len({member.y for member in group}) > 1]


def look(proposal: Proposal, samples: int | None = None) -> Findings:
    """Read all samples of all parts, or so many of each, evenly spaced. Raises DataError where nothing is there."""
    data = proposal.build()
    data.prepare_data()
    findings = Findings(data.class_names)
    for part in data.parts():
        findings.parts[part] = len(data.source(part))
    _divide(data, findings)
    findings.decoded = "picture" in proposal.kind
    for part in findings.parts:
        source = data.source(part)
        y = classes(source, data.class_names).tolist()
        split = _split_of(data, findings, part)
        rows = np.unique(np.linspace(0, len(source) - 1, min(len(source), samples or len(source))).round()).astype(int)
        for row, seen in zip(rows.tolist(), _read(source, rows, f"reading {part}"), strict=True):
            findings.add(seen, Member(split[row], y[row], source.place(row)))
    return findings


def _divide(data: OwnDataModule, findings: Findings) -> None:
    """The sizes and classes of the splits that can be made."""
    for split in PARTS:
        part = data.taken_from(split)
        if part not in findings.parts:
            continue
        rows, y = data.rows(split), classes(data.source(part), data.class_names)
        y = y if rows is None else y[rows]
        findings.splits[split] = len(y)
        findings.sources[split] = part
        findings.counts[split] = y.bincount(minlength=data.num_classes).tolist()


def _split_of(data: OwnDataModule, findings: Findings, part: SplitName) -> np.ndarray:
    """The split [N] to which each sample of a part belongs, the part itself where it is not divided."""
    answer = np.full(findings.parts[part], part, dtype="<U5")
    for split in ("val", "test") if part == "train" else ():
        if findings.sources.get(split) == "train" and (rows := data.rows(split)) is not None:
            answer[rows.numpy()] = split
    return answer


def _read(source: Source, rows: np.ndarray, description: str) -> Iterator[Seen]:
    """What each of these samples is, in their order."""
    parts = [torch.from_numpy(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for seen in tracked(pool.map(lambda part: _batch(source, part), parts), description, total=len(parts)):
            yield from seen


def _batch(source: Source, rows: Tensor) -> list[Seen]:
    try:
        return [_seen(sample) for sample in source.read(rows)]
    except SampleError as error:
        if len(rows) == 1:
            return [Seen(str(error))]
        return [seen for row in rows for seen in _batch(source, row[None])]


def _seen(sample: Any) -> Seen:
    if isinstance(sample, str):
        return Seen(None, _digest(sample.encode(), ()), (), "text", len(sample), len(sample))
    low, high = (float(end) for end in sample.aminmax())
    grey = (
        sample.ndim == 3
        and len(sample) == 3
        and bool((sample[0] == sample[1]).all() and (sample[0] == sample[2]).all())
    )
    content, shape = sample.contiguous().numpy().tobytes(), tuple(sample.shape)
    return Seen(None, _digest(content, shape), shape, str(sample.dtype).removeprefix("torch."), low, high, grey)


def _digest(content: bytes, shape: tuple[int, ...]) -> bytes:
    return hashlib.blake2b(content, digest_size=16, person=repr(shape).encode()[:16]).digest()
