"""Two language models compared: distances with their bounds or errors, and likenesses beside chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from likeness.figures.style import PAGE, PALETTE, SMALL, blank, in_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from likeness.language.answer import LanguageComparison

DISTANCES = (
    ("kl_12", "KL(1 || 2), nats"),
    ("kl_21", "KL(2 || 1), nats"),
    ("js", "JS, nats"),
    ("total_variation", "total variation"),
    ("term_1", "d_LLV, term 1"),
    ("term_2", "d_LLV, term 2, at least that of all"),
    ("d_svd_typical", "d_SVD, random tokens"),
    ("max_d_svd", "largest d_SVD"),
    ("d_logit_weighted_normalised", "d_logit$^2$ by frequency, normalised"),
)
LIKENESSES = (
    ("agreement", "same likeliest token"),
    ("m_cca_f", "m_CCA(f)"),
    ("m_cca_g", "m_CCA(g)"),
    ("linear_cka_f", "linear CKA(f)"),
)
SMALLEST = 1e-16  # of a distance on the logarithmic axis: what is less is 0 up to rounding
BOUNDS = {"term_1": ("term_1_lower", "term_1"), "max_d_svd": ("max_d_svd", "certificate")}


@in_style()
def comparison_figure(found: LanguageComparison) -> Figure:
    """On the left distances, on a logarithmic axis, with bars of two standard errors or of what bounds them.

    On the right likenesses from 0 to 1; a cross is what unrelated models would score. What is undefined is left out.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    caption = (
        "On the left distances, small where models are alike; on the right likenesses, 1 where they are. Bars are "
        "bounds or two standard errors, the cross is what unrelated models would score."
    )
    figure = blank(PAGE, 2.7, caption)
    left, right = figure.subplots(1, 2, width_ratios=(1.4, 1))
    _draw(left, found, DISTANCES)
    left.set_xscale("log")
    left.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    left.xaxis.set_major_formatter("{x:g}")
    left.xaxis.set_minor_formatter(NullFormatter())
    left.set_xlabel("distance: 0 if alike\nbars are bounds, or two standard errors", fontsize=SMALL)
    _draw(right, found, LIKENESSES)
    right.set_xlim(-0.02, 1.02)
    right.set_xlabel("likeness: 1 if alike\nx: unrelated models", fontsize=SMALL)
    shown = [name for name, _ in LIKENESSES if getattr(found, name) is not None]
    if found.m_cca_f_of_noise is not None and "m_cca_f" in shown:
        right.plot(found.m_cca_f_of_noise, shown.index("m_cca_f"), "x", color=PALETTE[1], ms=5)
    figure.suptitle(f"{found.names[0]} (1) and {found.names[1]} (2), {found.positions:,} positions")
    return figure


def _draw(axes: Axes, found: LanguageComparison, lines: tuple[tuple[str, str], ...]) -> None:
    known = [(name, label, float(getattr(found, name))) for name, label in lines if getattr(found, name) is not None]
    for place, (name, _, value) in enumerate(known):
        low, high = _interval(found, name, value)
        value, low, high = (max(number, SMALLEST) for number in (value, low, high))
        axes.plot([low, high], [place, place], color=PALETTE[4], lw=4, solid_capstyle="butt", zorder=1)
        axes.plot(value, place, "o", color=PALETTE[0], zorder=2)
    axes.set_yticks(range(len(known)), [label for _, label, _ in known])
    axes.set_ylim(len(known) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def _interval(found: LanguageComparison, name: str, value: float) -> tuple[float, float]:
    if name in BOUNDS:
        low, high = (getattr(found, field) for field in BOUNDS[name])
        return (value if low is None else low), (value if high is None else high)
    error = 2 * found.errors.get(name, 0.0)
    return value - error, value + error
