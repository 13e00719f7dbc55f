"""Methods side by side: what each does to hubness and to k-NN classification.

A method is compared with the points as they are under its own metric: what another metric changes is no reduction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from likeness.hubness.analysis import HubnessReport
from likeness.hubness.reduction_base import HubnessReduction
from likeness.hubness.reductions import Composition
from likeness.neighbours.classification import KnnChoice, KnnScore, McNemar, choose_k, knn_score, mcnemar
from likeness.neighbours.exact import Neighbours
from likeness.progress import tracked
from scripts.hubness.analysis import Search, known_labels, report_on, require_comparable
from scripts.hubness.methods import BASE, Base, build_method
from scripts.hubness.points import Points

LISTED = 60  # neighbours of each point, of which cross-validation strikes those of its own fold
KS = range(2, 20)  # as Nielsen & Hansen try them
FOLDS = 10
LEVEL = 0.05  # of all tests together


@dataclass(frozen=True)
class Task:
    """What methods are compared on. Texts may say no labels, and then nothing is classified."""

    points: Points
    queries: Points | None
    search: Search
    folds: int  # of the cross-validation that chooses k; 0 leaves it out
    bank: Points | None = None  # queries that stand for those to come


@dataclass(frozen=True)
class Outcome:
    """One method: its hubness and, where labels are known, how well its neighbours classify."""

    method: str
    metric: str
    base: Outcome | None  # what it is compared with; None for the points as they are
    report: HubnessReport
    score: KnnScore | None = None  # with the k of the hubness: leave-one-out, or of the queries
    choice: KnnChoice | None = None  # over the index
    chosen: KnnScore | None = None  # with the k that was chosen: in cross-validation, or of the queries


@dataclass(frozen=True)
class HubnessComparison:
    """Outcomes of methods on one task: of each metric first the points as they are, then the methods that go by it."""

    task: Task
    outcomes: Sequence[Outcome]
    notes: Sequence[str]

    @property
    def level(self) -> float:
        """Of each test, so that all of them together err with 5 %."""
        return LEVEL / max(1, sum(outcome.base is not None for outcome in self.outcomes))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of the texts, then of the embeddings."""
        queries = self.task.queries.warnings if self.task.queries else ()
        return self.task.points.warnings + queries + self.outcomes[0].report.warnings

    def reductions(self, outcome: Outcome) -> dict[str, float]:
        """Of each index, in percent of the baseline's: 100 (h_base - h) / h_base, as the paper reports them."""
        base = (outcome.base or outcome).report.indices()
        values = outcome.report.indices()
        return {name: 100 * (base[name] - value) / base[name] for name, value in values.items() if base.get(name)}

    def tests(self, outcome: Outcome) -> dict[str, McNemar]:
        """McNemar's test against the base, of the error with the hubness's k and with the chosen one."""
        base = outcome.base or outcome
        pairs = {"error": (base.score, outcome.score), "chosen_error": (base.chosen, outcome.chosen)}
        return {
            name: mcnemar(a.correct, b.correct, self.level)
            for name, (a, b) in pairs.items()
            if a is not None and b is not None
        }


def compare_methods(
    points: Points,
    queries: Points | None,
    methods: Sequence[str],
    search: Search,
    folds: int = FOLDS,
    bank: Points | None = None,
) -> HubnessComparison:
    """Fit each method on the points and measure it, and for each of their metrics the points as they are.

    Raises ValueError, before anything is computed, for methods that do not exist and for what
    :func:`scripts.hubness.analysis.require_comparable` refuses.
    """
    require_comparable(points, queries, search)
    repeated = [method for method, times in Counter(methods).items() if times > 1]
    if repeated:
        raise ValueError(f"--methods names {repeated[0]} twice")
    built = {method: build_method(method, search.methods_metric) for method in methods}
    if bank is not None and not any(method.takes_bank for method in built.values()):
        raise ValueError(f"--bank: none of the methods {', '.join(methods)} takes a bank of queries")
    folds, notes = possible_folds(points, folds)
    task = Task(points, queries, search, folds, bank)
    steps: list[tuple[str, HubnessReduction]] = []
    for metric in dict.fromkeys(method.metric for method in built.values()):
        of_metric = [(name, method) for name, method in built.items() if method.metric == metric]
        bases = [entry for entry in of_metric if isinstance(entry[1], Base)][:1] or [(BASE, Base(metric))]
        steps += bases + [entry for entry in of_metric if not isinstance(entry[1], Base)]
    outcomes: list[Outcome] = []
    for name, method in tracked(steps, "comparing methods"):
        base = None
        if not isinstance(method, Base):
            base = next(of for of in outcomes if of.base is None and of.metric == method.metric)
        outcomes.append(_named_outcome(name, method, task, base))
        notes += method.notes
    if outcomes[0].score is None:
        notes.append("no labels, so nothing is classified: name them with --labels")
    return HubnessComparison(task, outcomes, notes)


def possible_folds(points: Points, folds: int) -> tuple[int, list[str]]:
    """As many folds as points and the smallest class allow, 0 where that is fewer than 2, with a note of the change.

    Raises ValueError for one fold, which leaves nothing to classify by, and for fewer than none.
    """
    if folds < 0 or folds == 1:
        raise ValueError(f"--folds must be 0 or at least 2, got {folds}")
    if points.labels is None or folds == 0:
        return 0, []
    label, smallest = min(Counter(points.labels).items(), key=lambda entry: entry[1])
    where = f"label {label!r} has {smallest} point{'s' if smallest > 1 else ''}"
    possible = min(folds, smallest)
    if possible < 2:
        return 0, [f"{where}, so k is not chosen by cross-validation"]
    left = len(points) - -(-len(points) // possible)  # outside the largest fold
    if left < KS.start:
        few = f"{len(points)} points in {possible} folds have lists of {left}, but k is chosen from {KS.start} on"
        return 0, [f"{few}, so k is not chosen by cross-validation"]
    if possible == folds:
        return folds, []
    return possible, [f"{where}, so k is chosen in {possible} folds and not in {folds}"]


def _named_outcome(name: str, method: HubnessReduction, task: Task, base: Outcome | None) -> Outcome:
    try:
        return _outcome(name, method, task, base)
    except ValueError as error:
        raise ValueError(f"{name} cannot be measured on {task.points.source}: {error}") from error


def _outcome(name: str, method: HubnessReduction, task: Task, base: Outcome | None) -> Outcome:
    points, queries, search = task.points, task.queries, task.search
    method.fit(points.vectors, task.bank.vectors if task.bank is not None and method.takes_bank else None)
    own = method.rerank(None, _listed(method, task, LISTED)) if queries is None or task.folds else None
    asked = None if queries is None else method.rerank(queries.vectors, _listed(method, task, KS[-1]))
    found = asked or own
    assert found is not None
    labels, query_labels = known_labels(points, queries)
    report = replace(report_on(points, queries, search, found.ids), metric=method.metric)
    about = name, method.metric, base, report
    if labels is None:
        return Outcome(*about)
    score = knn_score(found, labels, search.k, query_labels=query_labels)
    if own is None or not task.folds:
        return Outcome(*about, score)
    choice = choose_k(own, labels, _ks(own, task.folds), folds=task.folds, seed=search.seed)
    chosen = choice.best
    if asked is not None:
        chosen = knn_score(asked, labels, chosen.k, query_labels=query_labels)
    return Outcome(*about, score, choice, chosen)


def _listed(method: HubnessReduction, task: Task, wanted: int) -> int:
    """The length of lists of neighbours: for cross-validation as many as are wanted, if the method has them."""
    last = method.last if isinstance(method, Composition) else method
    available = min(len(task.points) - 1, getattr(last, "candidates", None) or len(task.points))
    return max(task.search.k, min(available, wanted)) if task.folds else task.search.k


def _ks(lists: Neighbours, folds: int) -> range:
    """Those k that lists leave when points of the own fold are struck, one in ``folds`` and six deviations more."""
    width, share = lists.ids.shape[1], 1 / folds
    left = int(width * (1 - share) - 6 * (width * share * (1 - share)) ** 0.5)
    return range(KS.start, max(KS.start + 1, min(KS.stop, left + 1)))
