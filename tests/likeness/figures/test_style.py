"""One look for all figures, one way to make and to save them, and captions that go where figures go."""

import ast
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from scipy.spatial.distance import pdist

from likeness.figures.diffusion import schedule_figure
from likeness.figures.output import read_caption, save_figure, save_formats
from likeness.figures.style import PALETTE, STYLE, blank, in_style
from likeness.pages.interactive import DARK_PALETTE
from tests.likeness.figures.drawings import MAIN
from tests.scripts.report.run_folders import PNG

ROOT = Path(__file__).parents[3]
FOLDERS = ("likeness", "lightning_modules", "datamodules", "callbacks", "scripts", "docs")
ALLOWED = {"likeness/figures/style.py": {"Figure"}, "likeness/figures/output.py": {"savefig"}}
SAID = '\N{GREEK SMALL LETTER GAMMA} of "most" & <b>: what to see.'


@pytest.fixture
def figure() -> Figure:
    with in_style():
        found = blank(3.3, 1.0, SAID)
        found.add_subplot().plot([0, 1])
    return found


def _made_and_saved(source: str) -> set[str]:
    """Which of ``Figure``, ``savefig`` and ``pyplot`` a module calls or imports."""
    called = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = {getattr(of, "id", getattr(of, "attr", "")) for of in called}
    return names & {"Figure", "Canvas", "savefig"} | ({"pyplot"} if "matplotlib.pyplot" in source else set())


def test_nothing_else_makes_or_saves_a_figure() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): made
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if "matplotlib" in (source := path.read_text(encoding="utf-8")) or "savefig" in source
        if (made := _made_and_saved(source))
    }
    assert found == ALLOWED


def test_a_caption_is_in_the_file(figure: Figure, tmp_path: Path) -> None:
    path = save_figure(figure, tmp_path / "figure.png")
    with Image.open(path) as image:
        assert image.info["Description"] == SAID
    assert read_caption(path.read_bytes()) == SAID
    text = save_figure(figure, tmp_path / "figure.svg").read_text(encoding="utf-8")
    assert "of &quot;most&quot; &amp; &lt;b&gt;" in text or 'of "most" &amp; &lt;b&gt;' in text
    assert "<dc:date>" not in text


def test_formats_of_one_figure_have_it_in_the_same_place(tmp_path: Path) -> None:
    """Constrained layout finds the place once, and what is many points is no heavy file."""
    figure = blank(3, 2, SAID)
    axes = figure.add_subplot(title="above")
    axes.scatter(*np.random.default_rng(0).normal(size=(2, 5000)), rasterized=True)
    picture, paper = save_formats(figure, tmp_path, "0.5", ("png", "pdf"))
    place = axes.get_position().bounds
    assert [picture.name, paper.name] == ["0.5.png", "0.5.pdf"]
    assert paper.read_bytes().startswith(b"%PDF-")
    assert b"/Type3" not in paper.read_bytes()  # fonts that conferences refuse
    assert paper.stat().st_size < 300_000
    axes.set_title("above\nand above")
    figure.draw_without_rendering()
    assert axes.get_position().bounds == place


def test_a_figure_without_a_caption_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("a figure with 0 axes has no caption")):
        save_figure(Figure(), tmp_path / "figure.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no picture", PNG, PNG[:40], PNG[:16] + 8 * b"\x7f" + PNG[24:]])
def test_what_has_no_caption_has_an_empty_one(content: bytes) -> None:
    assert read_caption(content) == ""


def test_the_style_is_left_behind(figure: Figure) -> None:
    before = matplotlib.rcParams["font.size"]
    assert before != STYLE["font.size"]
    axes = figure.axes[0]
    assert axes.xaxis.label.get_fontsize() == STYLE["axes.labelsize"]
    assert not axes.spines["top"].get_visible()
    assert matplotlib.rcParams["font.size"] == before


def test_colours_are_published_ones_that_are_told_apart() -> None:
    """Seven as in Wong (2011), Nature Methods 8, 441, without the yellow; what is added is as far from them."""
    rgb = [tuple(bytes.fromhex(colour[1:])) for colour in PALETTE]
    seven = {(0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (0, 114, 178), (213, 94, 0), (204, 121, 167)}
    assert {*rgb[:7]} == seven
    assert len(PALETTE) == len(DARK_PALETTE) == 10
    assert min(closest(rgb, vision) for vision in VISIONS) >= min(closest(rgb[:7], vision) for vision in VISIONS) - 1e-9


# What is seen of linear RGB with all cones, and without the one for long or for medium waves (Machado et al. 2009).
VISIONS = (
    np.eye(3),
    np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
)
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def closest(rgb: list[tuple[int, ...]], vision: np.ndarray) -> float:
    """The least distance in CIELAB between two of these colours of sRGB."""
    shares = np.array(rgb) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    xyz = (linear @ vision.T).clip(0, 1) @ TO_XYZ.T / TO_XYZ.sum(1)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
    return float(pdist(lab).min())


def _words(figure: Figure) -> list[Text]:
    """What stands around and in the axes; ticks beyond the limits are there for matplotlib, but not drawn."""
    of_axes = [word for axes in figure.axes for word in (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts)]
    legends = [*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))]
    return [*of_axes, *figure.texts, *(word for legend in legends for word in legend.get_texts())]


def _cut(figure: Figure) -> list[str]:
    """The words that do not stand within the figure."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    inside = figure.bbox.padded(1)  # pixels
    extents = {word.get_text(): word.get_window_extent(canvas.get_renderer()) for word in _words(figure)}
    return [
        said for said, box in extents.items() if said and not (inside.contains(*box.min) and inside.contains(*box.max))
    ]


@pytest.mark.parametrize("name", MAIN)
def test_no_word_leaves_the_figure(name: str) -> None:
    assert _cut(MAIN[name]()) == []


def test_no_word_leaves_a_schedule() -> None:
    t = np.linspace(0, 1, 101)[:, None]
    assert _cut(schedule_figure(12.9 * t - 7.9, 0 * t + 12.9)) == []
    assert _cut(schedule_figure(12.9 * t**2 - 7.9, 25.8 * t)) == []


def test_a_label_that_is_too_long_is_seen(figure: Figure) -> None:
    assert _cut(figure) == []
    figure.axes[0].set_ylabel("what unrelated representations score")
    assert _cut(figure) == ["what unrelated representations score"]
