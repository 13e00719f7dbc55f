"""The main figures look as they did when somebody last looked at them, and a change that a reader would see is seen."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images

from tests.likeness.figures.drawings import GOLDEN, MAIN, drawn_with, write_small

TOLERANCE = 0.2  # root mean square of the differences of 256 levels
OWN, FOUND = json.loads((GOLDEN / "drawn_with.json").read_text()), drawn_with()
pytestmark = pytest.mark.skipif(OWN != FOUND, reason=f"golden images are of {OWN}, here is {FOUND}")


def difference(name: str, figure: Figure, folder: Path) -> dict[str, object] | None:
    """None where the figure is its golden image, else what matplotlib says of it."""
    actual = write_small(figure, folder / f"{name}.png")
    return compare_images(str(GOLDEN / f"{name}.png"), str(actual), TOLERANCE, in_decorator=True)  # type: ignore[return-value]


@pytest.mark.parametrize("name", MAIN)
def test_a_figure_is_what_it_was(name: str, tmp_path: Path) -> None:
    assert difference(name, MAIN[name](), tmp_path) is None


def _mislabel(figure: Figure) -> None:
    figure.axes[2].set_xlabel(r"$\gamma = \log\,\mathrm{SNR}$")  # without its sign


def _exchange_colours(figure: Figure) -> None:
    first, second = figure.axes[0].get_lines()[1:3]
    colour = first.get_color()
    first.set_color(second.get_color())
    second.set_color(colour)


def _lose_a_curve(figure: Figure) -> None:
    figure.axes[1].get_lines()[-1].remove()


def _change_a_value(figure: Figure) -> None:
    figure.axes[0].texts[0].set_text("0.38")  # 0.33


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("loss", _mislabel),
        ("occurrences", _exchange_colours),
        ("occurrences", _lose_a_curve),
        ("curves", _exchange_colours),
        ("similarity", _change_a_value),
    ],
)
def test_what_a_reader_would_see_is_seen(name: str, change: Callable[[Figure], None], tmp_path: Path) -> None:
    figure = MAIN[name]()
    change(figure)
    found = difference(name, figure, tmp_path)
    assert found is not None
    assert found["rms"] > 2 * TOLERANCE  # type: ignore[operator]
