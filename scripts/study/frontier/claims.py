"""Claims of the frontier study and the rules that decide them, fixed before anything was run.

*Below* means below by two standard errors over seeds. A claim that is neither supported nor refuted is not shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from scripts.reporting import Row
from scripts.study.frontier.pairs import FITTED, SCALAR, Paired, Place, Results, Side

Outcome = Literal["supported", "refuted", "not shown"]
DIGITS, CIFAR, MNIST, LONGER = Place("digits"), Place("cifar10"), Place("mnist"), Place("digits", 4)
DIMS = 64  # of a digit
WORSE = 0.01  # bits per dimension
GRADIENT = 0.85  # the share of a gradient's second moment that a density of the times must stay below
# Measured before, of a VDM of the digits: the variance at stratified times of a density, as a share of that at uniform.
MEASURED_RATIO = {"signal": 0.138 / 0.209, "adaptive": 0.132 / 0.209}
DENSITIES = {"b": "signal", "c": "adaptive"}
TOLERANCE = 0.2  # of that ratio
COLLAPSED = 0.01  # nats of a context's KL
OVERHEAD = 0.02  # bits per dimension that a coder may take above the bound


@dataclass(frozen=True)
class Claim:
    """What was claimed, what came of it, and the numbers that decided."""

    name: str
    statement: str
    outcome: Outcome
    numbers: Sequence[str]

    def row(self) -> Row:
        """For a table."""
        return {"claim": self.name, "outcome": self.outcome, "statement": self.statement}

    def text(self) -> str:
        """A paragraph of a text file."""
        return "\n".join([f"{self.name}: {self.outcome}", f"  {self.statement}", *(f"  {it}" for it in self.numbers)])


def decided(results: Results) -> list[Claim]:
    """All claims in their order."""
    rules = (volatility, trained_volatility, sampled_times, schedule_of_each_dimension, context, everything, honesty)
    return [rule(results) for rule in rules]


def said(name: str, found: Paired | None) -> str:
    """A difference as it is written: its mean, its error over seeds, and each seed's."""
    if found is None:
        return f"{name}: not run"
    error = "" if found.se is None else f" ± {found.se:.4f}"
    seeds = ", ".join(f"{value:+.4f}" for value in found.by_seed)
    return f"{name} = {found.mean:+.4f}{error} (seeds: {seeds})"


def volatility(results: Results) -> Claim:
    """Supported by i < h in all seeds and |i - a| < |h - a| / 2; refuted by i >= h."""
    pairs = {f"{x} - {y}": results.paired(DIGITS, Side(x), Side(y)) for x, y in ("ih", "ia", "ha")}
    own, closer, gap = pairs.values()
    outcome: Outcome = "not shown"
    if own is not None and own.mean >= 0:
        outcome = "refuted"
    elif own is not None and closer is not None and gap is not None:
        closes = max(own.by_seed) < 0 and abs(closer.mean) < abs(gap.mean) / 2
        outcome = "supported" if closes else "not shown"
    fitted = [(f"{x} fitted - {y}", results.paired(DIGITS, Side(x, FITTED), Side(y))) for x, y in ("hh", "ha", "ii")]
    statement = "a learned volatility closes half of the gap between DiffEnc-nt and VDM on the digits"
    return Claim("V", statement, outcome, [said(*pair) for pair in (*pairs.items(), *fitted)])


def trained_volatility(results: Results) -> Claim:
    """Supported by g <= f on the digits; refuted by g > f + .01."""
    found = results.paired(DIGITS, Side("g"), Side("f"))
    outcome: Outcome = "not shown"
    if found is not None and found.mean <= 0:
        outcome = "supported"
    elif found is not None and found.mean > WORSE:
        outcome = "refuted"
    others = [("g - f on cifar10", results.paired(CIFAR, Side("g"), Side("f")))]
    others += [(f"{x} fitted - {x}", results.paired(DIGITS, Side(x, FITTED), Side(x))) for x in "fg"]
    statement = "a learned volatility harms no trained encoder: little is gained at most"
    return Claim("V, trained encoder", statement, outcome, [said("g - f", found), *(said(*pair) for pair in others)])


def sampled_times(results: Results) -> Claim:
    """Of b or c: below a, equal to a within the standard error at 4 x the steps, with less noise, as measured before.

    Refuted where neither density brings a gradient's second moment below .85.
    """
    measured = results.only("gradient_signal")
    numbers, kept = [], []
    for arm, density in DENSITIES.items():
        short, long = (results.paired(place, Side(arm), Side("a")) for place in (DIGITS, LONGER))
        numbers += [said(f"{arm} - a", short), said(f"{arm} - a at 4 x the steps", long)]
        if measured is None:
            continue
        ratio, moment = _noise(measured, density)
        numbers.append(f"{density}: stratified variance x {ratio:.3f} (before: x {MEASURED_RATIO[density]:.3f}),")
        numbers[-1] += f" gradient's second moment x {moment:.3f}"
        near = abs(ratio / MEASURED_RATIO[density] - 1) <= TOLERANCE
        equal = long is not None and long.se is not None and abs(long.mean) <= long.se
        kept.append(short is not None and short.below and equal and near and moment < GRADIENT)
    outcome: Outcome = "supported" if any(kept) else "not shown"
    if measured is not None and min(_noise(measured, density)[1] for density in DENSITIES.values()) >= GRADIENT:
        outcome = "refuted"
    statement = "importance-sampled times lower the bound of a short training and leave that of a long one as it is"
    return Claim("IS", statement, outcome, numbers)


def _noise(row: Row, density: str) -> tuple[float, float]:
    """The share of the stratified variance, and of the gradient's second moment, that a density leaves."""
    return row[f"stratified_{density}"] / row["stratified_uniform"], row[f"gradient_{density}"]


def schedule_of_each_dimension(results: Results) -> Claim:
    """Supported by d below a and a_map, and better along its own path than along one gamma; refuted if not below.

    Of a single seed nothing is decided.
    """
    pairs = {f"d - {control}": results.paired(DIGITS, Side("d"), Side(control)) for control in ("a", "a_map")}
    path = results.paired(DIGITS, Side("d", SCALAR), Side("d"))
    outcome: Outcome = "not shown"
    known = [found for found in pairs.values() if found is not None and found.se is not None]
    if len(known) == len(pairs):
        if not all(found.below for found in known):
            outcome = "refuted"
        elif path is not None and path.mean > 0:
            outcome = "supported"
    statement = "a gamma of each dimension lowers the bound of VDM on the digits, by its path"
    return Claim("MV", statement, outcome, [said(*pair) for pair in [*pairs.items(), ("d, one gamma - d", path)]])


def context(results: Results) -> Claim:
    """Supported by e below d by more than its KL, by two standard errors; refuted by a KL under .01 nats: the posterior
    has collapsed."""
    found, runs = results.paired(DIGITS, Side("e"), Side("d")), results.runs(DIGITS, "e").values()
    statement = "a Gaussian context gains more than its KL beside a gamma of each dimension"
    if found is None:
        return Claim("Context", statement, "not shown", [said("e - d", found)])
    cost = fmean(run["context"] for run in runs)
    nats = cost * DIMS * math.log(2)
    outcome: Outcome = "not shown"
    if nats < COLLAPSED:
        outcome = "refuted"
    elif Paired(tuple(difference + cost for difference in found.by_seed)).below:
        outcome = "supported"
    numbers = [said("e - d", found), f"KL of the context: {nats:.4f} nats, {cost:.4f} bits per dimension"]
    return Claim("Context", statement, outcome, numbers)


def everything(results: Results) -> Claim:
    """Supported by j below f and a_matched on all three data sets; refuted by j above one of them anywhere."""
    pairs = {
        f"j - {control} on {place}": results.paired(place, Side("j"), Side(control))
        for place in (DIGITS, CIFAR, MNIST)
        for control in ("f", "a_matched")
    }
    outcome: Outcome = "not shown"
    if any(found is not None and found.above for found in pairs.values()):
        outcome = "refuted"
    elif all(found is not None and found.below for found in pairs.values()):
        outcome = "supported"
    statement = "all together lower the bound of DiffEnc, and that of a VDM of as many parameters"
    return Claim("All", statement, outcome, [said(*pair) for pair in pairs.items()])


def honesty(results: Results) -> Claim:
    """Supported by a lossless stream of at least the bound - 3 SE, at most .02 more; refuted below or if it loses."""
    statement = "a coder takes the bits that the bound of its depth says"
    row, flow = results.only("coder_net"), results.only("flow")
    if row is None:
        return Claim("Honesty", statement, "not shown", ["the coder has not been run"])
    net, bound, error = row["coder_net"], row["coder_elbo"], row["coder_se"]
    outcome: Outcome = "not shown"
    if not row["coder_lossless"] or net < bound - 3 * error:
        outcome = "refuted"
    elif net <= bound + OVERHEAD:
        outcome = "supported"
    numbers = [
        f"arm {row['arm']}: net {net:.4f}, bound {bound:.4f} ± {error:.4f} (of the difference), "
        f"borrowed once {row['coder_borrowed']:.2f} bits per dimension, lossless: {row['coder_lossless']}"
    ]
    if flow is not None:
        numbers.append(f"arm {flow['arm']}: ODE-TN {flow['flow']:.4f} ± {flow['flow_draw_se']:.4f}, ")
        numbers[-1] += f"ELBO of the same images {flow['flow_elbo']:.4f} ± {flow['flow_elbo_draw_se']:.4f} (over draws)"
    return Claim("Honesty", statement, outcome, numbers)
