"""Which labels of a softmax head can win at all, and which sets of labels can be the most probable ones.

Exact, and each answer with its proof: a feature vector that does it, or a point that the hull of the set and the hull
of all other labels share. What no proof decides is called undecided. Features are any of R^M: a set that some
network's features never reach may still be feasible here, and an infeasible one is so for every network.

Heads may have any number of labels. Most sets are on top in the direction of their own mean, in coordinates in which
the labels spread evenly: one pass over the head in float32 proves it. The others are set against the few labels that
are in their way, and against more of them in each round, until they beat all or the hull of a few holds them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from likeness.label_geometry.centred_rows import CentredRows
from likeness.label_geometry.hull_proofs import Contest, Decision, propose
from likeness.label_geometry.similarity import LabelRows, Progress
from likeness.numerics import as_float64

MAX_ENTRIES = 2**23  # of the rows that a set is set against: 64 MB
_FIRST = 128  # labels of the first round; each round doubles them
_TOGETHER = 2**22  # entries of lists of labels: sets of which rounds are made together
_GATHERED = 2**12  # sets whose rows are gathered at a time
_TINY = 1e-300

Labels = tuple[int, ...]


@dataclass(frozen=True)
class TopSet:
    """Whether a set of labels can have the highest logits, all of them above all others', and the proof."""

    labels: Labels
    feasible: bool | None  # None: undecided, because too many labels are in the way to be certain
    features: Tensor | None = None  # [M] at which the set is on top, if feasible and if float64 has such features
    weights: dict[int, float] | None = None  # if infeasible: of labels, convex ones of the set and of others with
    # equal mixtures


def can_be_top(g: LabelRows, labels: Sequence[int], bias: Tensor | None = None) -> TopSet:
    """Whether some x puts the logits of all ``labels`` above all others'; see :func:`top_sets`.

    The third label stands between the first two, so it never wins:

    >>> g = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    >>> can_be_top(g, [2]).feasible, can_be_top(g, [0, 3]).feasible
    (False, True)
    """
    return top_sets(g, [labels], bias)[0]


def never_top(g: LabelRows, bias: Tensor | None = None) -> list[TopSet]:
    """The labels that no feature vector makes the prediction, with their proofs; see :func:`top_sets`."""
    answers = top_sets(g, [[label] for label in range(g.shape[0])], bias)
    return [answer for answer in answers if answer.feasible is False]


def top_sets(
    g: LabelRows,
    sets: Iterable[Sequence[int]],
    bias: Tensor | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = iter,
) -> list[TopSet]:
    """For each set of labels whether some x in R^M puts all its logits g x + bias above all others'.

    g [K, M]; bias [K]. A set of one label: whether it can be the prediction, its argmax region having an inside.
    Several: whether they can be the top k, in some order. Infeasible exactly where the convex hulls of the two groups
    of label vectors meet (with a bias: in a point where the set's mixture of biases is not the higher one). g may
    stay on disk; the time is that of K M multiplications for each set, and memory holds 3 M numbers of it. Raises
    ValueError for a set that is empty, everything, or holds a repeated or unknown label, and for values that are not
    finite. Derived, after Grivas, Bogoychev & Lopez 2022.
    """
    chosen = [_checked(labels, g.shape[0]) for labels in sets]
    return _decided(CentredRows(g, bias, device), chosen, progress) if chosen else []


def doubtful_winners(
    g: LabelRows,
    count: int,
    asked: Iterable[Sequence[int]] = (),
    bias: Tensor | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = iter,
) -> list[TopSet]:
    """Whether the sets ``asked`` about can be on top, and the most doubtful labels, up to ``count`` single labels.

    Doubtful are labels that share their vector with others, then those least far out where the label vectors spread
    evenly. Ordered by their labels; raises ValueError as :func:`top_sets` does.
    """
    chosen = {_checked(labels, g.shape[0]) for labels in asked}
    more = count - sum(len(labels) == 1 for labels in chosen)
    if not chosen and more <= 0:
        return []
    rows = CentredRows(g, bias, device)
    if more > 0:
        others = ((label,) for label in rows.depths().argsort(stable=True).tolist())
        chosen |= set(islice((labels for labels in others if labels not in chosen), more))
    return _decided(rows, sorted(chosen), progress)


def _decided(rows: CentredRows, chosen: Sequence[Labels], progress: Progress) -> list[TopSet]:
    answers = _own_directions(rows, chosen, progress)
    undecided = [index for index, answer in enumerate(answers) if answer.feasible is None]
    for part in torch.split(torch.tensor(undecided, dtype=torch.long), _TOGETHER // max(_FIRST, 4 * rows.dim) + 1):
        searches = [_Search.of(rows, chosen[index]) for index in part.tolist()]
        for index, answer in zip(part.tolist(), _searched(rows, searches, progress), strict=True):
            answers[index] = answer
    return answers


def _own_directions(rows: CentredRows, sets: Sequence[Labels], progress: Progress) -> list[TopSet]:
    """For each set whether its own mean certainly puts it on top; with a bias, far enough along it."""
    inverse = rows.whitening @ rows.whitening.T
    directions, lowest = [], []
    for start in range(0, len(sets), _GATHERED):
        index, labels = _pairs(sets[start : start + _GATHERED], rows.device)
        own = rows.columns(labels.tolist())[:, : rows.dim]
        total = own.new_zeros(int(index[-1]) + 1, rows.dim).index_add(0, index, own)
        along = total @ inverse
        directions.append((along / along.abs().amax(1, keepdim=True).clamp(min=_TINY)).float())
        products = (own * directions[-1][index]).sum(1)
        lowest.append(products.new_full((len(total),), torch.inf).scatter_reduce(0, index, products, "amin"))
    x = torch.cat(directions)
    highest, _ = rows.highest(x, _pairs(sets, rows.device), 1, progress)
    margins = torch.cat(lowest) - highest[:, 0]
    won = (margins > rows.error(x)).nonzero().flatten()
    answers = [TopSet(labels, None) for labels in sets]
    for number, features in zip(won.tolist(), rows.beyond_bias(x[won], margins[won]), strict=True):
        if bool(features.isfinite().all()):
            answers[number] = TopSet(sets[number], True, features.cpu())
    return answers


def _pairs(of_rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """The numbers of rows and the labels that belong to them, [P] each."""
    sizes = torch.tensor([len(labels) for labels in of_rows])
    labels = torch.tensor([label for labels in of_rows for label in labels], dtype=torch.long)
    return torch.arange(len(sizes)).repeat_interleave(sizes).to(device), labels.to(device)


@dataclass
class _Search:
    """A set of labels, the others that are or were in its way, and the best features so far."""

    labels: Labels
    start: Tensor  # [D], where whitened directions are looked for
    features: Tensor  # [M]
    decision: Decision  # against the rivals
    rivals: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, rows: CentredRows, labels: Labels) -> "_Search":
        start = rows.start_of(labels)
        features = rows.features_of(rows.unwhitened(start))
        features = torch.zeros(rows.dim, dtype=torch.float64) if features is None else features
        return cls(labels, start, features, Decision(True, features))

    def meet(self, rows: CentredRows, rivals: Sequence[int]) -> None:
        """Decide against more labels, too."""
        self.rivals += rivals
        several = [*self.labels, *self.rivals]
        g = rows.rows(several)
        points = rows.whitened(rows.centred(g, several))
        proposal = propose(points, len(self.labels), self.start, rows.bias is not None)
        features = None if proposal.direction is None else rows.features_of(rows.unwhitened(proposal.direction))
        bias = None if rows.bias is None else rows.bias[several]
        contest = Contest(as_float64(g).cpu(), len(self.labels), bias)
        self.decision = contest.decide(features, proposal.support)
        if self.decision.features is not None:
            self.features = self.decision.features

    def answer(self, feasible: bool | None) -> TopSet:
        """The set with what is known of it."""
        if feasible is False and self.decision.weights is not None:
            several = [*self.labels, *self.rivals]
            weights = {several[row]: weight for row, weight in self.decision.weights.items()}
            return TopSet(self.labels, False, weights=weights)
        return TopSet(self.labels, feasible, self.decision.features if feasible else None)


def _searched(rows: CentredRows, searches: Sequence[_Search], progress: Progress) -> list[TopSet]:
    """The answers, each round with one pass over the head for all that are open."""
    answers: dict[Labels, TopSet] = {}
    count, still = _FIRST, list(searches)
    while still:
        x = torch.stack([rows.vector_of(search.features) for search in still])
        apart = [[*search.labels, *search.rivals] for search in still]
        own = torch.stack([(rows.columns(s.labels) @ x[index]).min() for index, s in enumerate(still)])
        highest, labels = rows.highest(x, _pairs(apart, rows.device), count)
        beaten = own - highest[:, 0] > rows.error(x)
        for step in progress([slice(index, index + 1) for index in range(len(still))]):
            index, search = step.start, still[step.start]
            new = labels[index][highest[index] > -torch.inf].tolist()
            if beaten[index] and search.decision.features is not None:
                answers[search.labels] = search.answer(True)
            elif not new:  # the rivals are all other labels
                answers[search.labels] = search.answer(search.decision.feasible)
            elif len(search.rivals) + len(new) > _most_rivals(rows):
                answers[search.labels] = search.answer(None)
            else:
                search.meet(rows, new)
                if search.decision.feasible is False:
                    answers[search.labels] = search.answer(False)
        still = [search for search in still if search.labels not in answers]
        count = len(still[0].rivals) if still else 0
    return [answers[search.labels] for search in searches]


def _most_rivals(rows: CentredRows) -> int:
    return max(_FIRST, MAX_ENTRIES // rows.dim)


def _checked(labels: Sequence[int], count: int) -> Labels:
    chosen = tuple(int(label) for label in labels)
    if len(set(chosen)) != len(chosen) or not 0 < len(chosen) < count or not all(0 <= y < count for y in chosen):
        raise ValueError(f"a top set is some but not all of the labels 0 to {count - 1}, each once; got {list(chosen)}")
    return chosen
