"""Pages as Chromium shows them: every figure drawn, nothing on the console, nothing asked of a network."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.report import report
from tests.browser import Browser, needs_chromium
from tests.scripts.report.run_folders import write_comparison, write_embeddings, write_labels, write_metrics, write_run

pytestmark = needs_chromium
DRAWN = "[...document.querySelectorAll('.plot')].filter((plot) => plot.querySelector('.main-svg')).length"
INK = "getComputedStyle(document.querySelector('.plot text')).fill"
COLOUR = "document.querySelector('.plot .js-line').style.stroke"
NAMES = (
    "[...document.querySelectorAll('[data-name=runs] tbody tr:not([hidden])')].map((row) => row.cells[0].textContent)"
)
HOSTILE = "<img src=x onerror=console.error('believed')><script>console.error('believed')</script>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    runs = [write_run(folder / f"a_seed{seed}", seed=seed) for seed in range(9)]
    runs.append(write_run(folder / HOSTILE.replace("/", "_"), lr=1.0))
    write_comparison(runs[0])
    write_labels(runs[0])
    write_embeddings(runs[0])
    write_metrics(runs[-1], ("step", f"val/{HOSTILE}", "train/loss"), [(0, 1.0, 3.0), (1, 2.0, "nan")])
    return report([*map(str, runs)], folder / "out", title=HOSTILE)[0]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (420, True)])
def test_a_page_draws_all_figures_and_complains_of_nothing(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    browser.open(page, width=width, dark=dark)
    assert browser.evaluate(DRAWN) == browser.evaluate("document.querySelectorAll('.plot').length") == 11
    assert browser.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert browser.evaluate("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    assert (browser.errors, browser.requests) == ([], [])


def test_the_button_turns_light_into_dark(browser: Browser, page: Path) -> None:
    browser.open(page)
    light = browser.evaluate(f"[{INK}, {COLOUR}]")
    browser.evaluate("delete document.documentElement.dataset.drawn; document.getElementById('theme').click()")
    browser.wait_for("document.documentElement.dataset.drawn !== undefined")
    dark = browser.evaluate(f"[{INK}, {COLOUR}]")
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    assert browser.errors == []


def test_tables_are_sorted_and_filtered_and_curves_chosen(browser: Browser, page: Path) -> None:
    browser.open(page)
    before = browser.evaluate(NAMES)
    heading = "[...document.querySelectorAll('[data-name=runs] th')].find((head) => head.textContent == 'train/loss')"
    browser.evaluate(f"{heading}.click(); {heading}.click()")
    assert browser.evaluate(NAMES) == [before[-1], *before[-2::-1]]  # by falling loss
    browser.evaluate(
        "const filter = document.querySelector('.filter'); filter.value = 'SEED3'; "
        "filter.dispatchEvent(new Event('input'))"
    )
    assert browser.evaluate(NAMES) == ["a_seed3"]
    browser.evaluate(
        "delete document.documentElement.dataset.drawn; const lines = document.getElementById('lines'); "
        "lines.value = 'a (9'; lines.dispatchEvent(new Event('input'))"
    )
    browser.wait_for("document.documentElement.dataset.drawn !== undefined")
    assert browser.evaluate("document.querySelector('[data-figure=train-loss]').data.map((t) => t.visible)") == [
        *(True, True, False),
    ]


@pytest.mark.parametrize(
    ("figure", "place", "said"),
    [
        ("label_raw", "{xval: 1, yval: 0}", "row catcolumn dog0.50000"),
        ("embeddings", "{xval: -1, yval: 0.5}", "f(x)class dogmodel 0(-1, 0.5)"),
    ],
)
def test_what_is_pointed_at_says_its_value(browser: Browser, page: Path, figure: str, place: str, said: str) -> None:
    browser.open(page)
    plot = f"document.querySelector('[data-figure$={figure}]')"
    browser.evaluate(f"Plotly.Fx.hover({plot}, {place}, 'xy')")
    browser.wait_for(f"{plot}.querySelector('.hovertext') !== null")
    assert browser.evaluate(f"{plot}.querySelector('.hovertext').textContent") == said
    assert (browser.errors, browser.requests) == ([], [])


def test_the_slider_goes_back_to_earlier_pictures(browser: Browser, page: Path) -> None:
    browser.open(page)
    shown = "[...document.querySelector('.frames').children].map((frame) => !frame.hidden)"
    assert browser.evaluate(shown) == [False, True]
    browser.evaluate(
        "const slider = document.querySelector('.slider input'); slider.value = 0; "
        "slider.dispatchEvent(new Event('input'))"
    )
    assert browser.evaluate(shown) == [True, False]
    assert browser.evaluate("document.querySelector('.slider output').textContent") == "step 10"


def test_a_page_prints_light_and_whole(browser: Browser, page: Path) -> None:
    browser.open(page, dark=True)
    assert browser.pdf().startswith(b"%PDF")
    assert browser.errors == []


def test_what_the_policy_forbids_does_not_happen(browser: Browser, page: Path) -> None:
    """And what a page complains of, or asks for, is seen by these tests."""
    html = page.read_text(encoding="utf-8")
    asking = "<script>window.ran = true; console.error('ran')</script><img src='http://127.0.0.1:9/x.png'>"
    changed = page.with_name("changed.html")
    changed.write_text(html.replace("</main>", f"</main>{asking}"), encoding="utf-8")
    browser.open(changed)
    assert browser.evaluate("window.ran") is None
    assert len(browser.errors) >= 2  # the script and the picture were refused
    free = page.with_name("free.html")
    free.write_text(f"<!doctype html><html data-drawn=0><body>{asking}</body></html>", encoding="utf-8")
    browser.open(free)
    assert browser.evaluate("window.ran")
    assert any("ran" in error for error in browser.errors)
    assert browser.requests == ["http://127.0.0.1:9/x.png"]
