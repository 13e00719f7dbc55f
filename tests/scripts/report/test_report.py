"""Pages of runs of every kind and in every state: what stands in them, and that nothing in them is believed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from plotly.graph_objects import Figure

from likeness.figures.output import save_figure, save_formats
from likeness.figures.style import blank
from likeness.pages.comparison import comparison_parts
from likeness.pages.interactive import numbers, plot
from likeness.pages.parts import Matrix, Picture
from likeness.pages.static import draw, write_figure
from likeness.pages.writing import INDEX, as_json, policy, rendered
from scripts.report import main, page_of, report
from scripts.report.groups import Study
from scripts.report.runs import read_runs
from tests.scripts.report.run_folders import (
    PNG,
    SEGMENT,
    write_comparison,
    write_embeddings,
    write_labels,
    write_metrics,
    write_run,
)

HOSTILE = "<script>alert(1)</script>$x_{$ & {{ 7 * 7 }} \N{SNOWMAN}"


def page(folder: Path) -> str:
    return (folder / INDEX).read_text(encoding="utf-8")


def shown(*runs: Path) -> str:
    """The page of these runs, without a file of it."""
    return rendered(page_of(Study(read_runs([*map(str, runs)]))))


def content(html: str) -> dict[str, Any]:
    (data,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', html, re.DOTALL)
    return json.loads(data)


def headings(html: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", html)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of one run."""
    folder = tmp_path_factory.mktemp("whole")
    run = write_run(folder / "run")
    write_comparison(run)
    assert report([str(run)], folder / "out")[0] == folder / "out" / INDEX
    return folder / "out"


def test_a_run_has_a_page_with_all_that_it_left(whole: Path) -> None:
    html = page(whole)
    assert headings(html) == [
        *("Overview", "Training", "Bound", "Samples", "Similarity", "Configuration", "Segments", "Environment"),
    ]
    figures = content(html)["figures"]
    assert {"train-loss", "val-bpd", "depth_curve", "run-comparison-kl", "run-comparison-m_cca_f"} == set(figures)
    for name in figures:
        assert (whole / "figures" / f"{name}.png").stat().st_size > 1000
        assert (whole / "figures" / f"{name}.svg").read_text().startswith("<?xml")
        assert f'href="figures/{name}.png"' in html
    assert (whole / "figures" / "run-samples.png").read_bytes() == PNG
    assert html.count('<img src="data:image/png;base64,') == 2  # the step kept, and the last
    assert "last.ckpt" in html


def test_pictures_say_what_to_see(tmp_path: Path) -> None:
    """The caption that is in the file, of the last frame."""
    run = write_run(tmp_path / "run")
    for name, caption in (("samples-step=000010", "The first."), ("samples", "Draws <b>of the model</b>.")):
        save_figure(blank(1, 1, caption), run / "figures" / f"{name}.png")
    html = shown(run)
    assert re.search(r"<figcaption>Draws &lt;b&gt;of the model&lt;/b&gt;\. <a", html)
    assert "The first." not in html


def test_pictures_have_the_pdf_that_a_run_left(tmp_path: Path) -> None:
    """As a file beside the page, and never within it; what only calls itself one is left where it is."""
    run = write_run(tmp_path / "run")
    figure = blank(1, 1, "Draws.")
    content = save_formats(figure, run / "figures", "samples")[1].read_bytes()
    (run / "figures" / "hubness.png").write_bytes(PNG)
    (run / "figures" / "hubness.pdf").write_bytes(b"<script>alert(1)</script>")
    found = page_of(Study(read_runs([str(run)])))
    html, _, _ = rendered(found).partition('<script type="application/json"')
    assert '<a href="figures/run-samples.pdf" download>PDF</a>' in html
    assert html.count(".pdf") == 1
    assert "data:application" not in html
    written = [path for part in found.parts() if isinstance(part, Picture) for path in write_figure(part, tmp_path)]
    assert sorted(path.name for path in written) == ["run-hubness.png", "run-samples.pdf", "run-samples.png"]
    assert (tmp_path / "run-samples.pdf").read_bytes() == content


def test_figures_are_of_plotlys_schema(whole: Path) -> None:
    for figure in (found := content(page(whole)))["figures"].values():
        Figure(figure)  # raises for a property that plotly does not know
    for theme in found["themes"].values():
        Figure(layout={"template": theme["template"]})


def test_curves_and_matrices_hold_the_numbers_of_the_files(whole: Path) -> None:
    figures = content(page(whole))["figures"]
    (loss,) = figures["train-loss"]["data"]
    assert loss["x"] == list(range(40))
    assert loss["y"] == pytest.approx([5 / (step + 1) for step in range(40)], rel=1e-5)
    (kl,) = figures["run-comparison-kl"]["data"]
    assert kl["z"] == [[None, 0.1, 0.3], [0.2, None, 0.5], [0.4, 0.6, None]]
    (cca,) = figures["run-comparison-m_cca_f"]["data"]
    assert cca["z"] == [[None, 0.9, 0.8], [0.9, None, None], [0.8, None, None]]
    assert cca["text"][0][1] == "if unrelated: 0.3; p: 0.01"
    assert "m_cca_f: constant" in cca["text"][1][2]


def test_layers_are_a_matrix_with_its_nulls(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "layers").mkdir()
    head = "measure,layer_a,layer_b,value,p_value,score,low,high,undefined\n"
    rows = "cka,0,0,0.9,0.05,0.8,0.85,0.95,\ncka,0,1,0.4,0.6,,,,\ncka,1,0,,,,,,constant\ncka,1,1,0.7,,,,,\n"
    (run / "layers" / "layers.csv").write_text(head + rows)
    (layers,) = content(shown(run))["figures"]["run-layers-cka"]["data"]
    assert layers["z"] == [[0.9, 0.4], [None, 0.7]]
    assert layers["text"][0] == ["p_value: 0.05; score: 0.8; low: 0.85; high: 0.95", "p_value: 0.6"]
    assert layers["text"][1][0] == "undefined: constant"


def test_similarities_of_labels_can_be_pointed_at(tmp_path: Path) -> None:
    """In the place of the picture of them."""
    run = write_run(tmp_path / "run")
    (run / "figures" / "label_similarity.png").write_bytes(PNG)
    assert "Label similarity</h3>" in shown(run)
    write_labels(run)
    html = shown(run)
    assert "Label similarity</h3>" not in html
    figures = content(html)["figures"]
    maps = {name: figures[f"run-label_{name}"]["data"][0] for name in ("raw", "centred", "invariant", "together")}
    assert maps["raw"]["z"] == [[1, 0.5], [0.5, 1]]
    assert maps["centred"]["z"] == [[1, None], [None, 1]]
    assert {(of["zmin"], of["zmax"], of["x"][1]) for of in maps.values()} == {(-1, 1, "dog")}
    Figure(figures["run-label_together"])


def test_embeddings_can_be_pointed_at(tmp_path: Path) -> None:
    """In the place of the picture, as far as the table makes sense, each arrow as it is turned and rescaled."""
    run, before = write_run(tmp_path / "run"), write_run(tmp_path / "before", lr=1.0)
    for own in (run, before):
        (own / "figures" / "embeddings.png").write_bytes(PNG)
    write_embeddings(run)
    html = shown(run, before)
    assert re.findall(r"<h3>(Embeddings.*)</h3>", html) == ["Embeddings: run", "Embeddings: before"]
    drawn, picture = (html.split(f"<h3>Embeddings: {name}")[1].split("</figure>")[0] for name in ("run", "before"))
    assert ("<img" in drawn, "<img" in picture) == (False, True)
    figure = content(html)["figures"]["run-embeddings"]
    Figure(figure)
    points = [trace for trace in figure["data"] if trace["mode"] == "markers"]
    assert [(trace["name"], trace["meta"]["model"], trace["x"], trace["y"]) for trace in points] == [
        *(("cat", "0", [1], [2]), ("dog", "0", [-1], [0.5]), ("cow", "0", [0], [-2])),
        *(("cat", "1", [10], [0]), ("dog", "1", [], [])),
    ]
    assert [trace["name"] for trace in figure["data"] if trace["showlegend"]] == ["cat", "dog", "cow"]
    cat = next(trace for trace in figure["data"] if trace["mode"] == "markers+text")
    assert cat["customdata"] == [[3, 4]]
    assert (cat["x"], cat["y"]) == (pytest.approx([1.02]), pytest.approx([1.36]))  # 0.85 of the longest coordinate, 2
    assert cat["marker"]["angle"] == [36.9]  # clockwise from upright
    titles = [figure["layout"][axis].get("title", {}).get("text") for axis in ("xaxis", "yaxis", "xaxis2", "yaxis2")]
    assert titles == [None, None, "1st axis: 75 % of variance", "2nd axis: 20 % of variance"]


def test_a_band_over_seeds_is_said_and_drawn(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"a_seed{seed}", seed=seed) for seed in range(3)]
    html = shown(*runs, write_run(tmp_path / "b", lr=1.0))
    assert "mean, least and greatest of the runs" in html
    band, line, other = content(html)["figures"]["train-loss"]["data"]
    assert (line["name"], other["name"]) == ("a (3 runs)", "b")
    assert line["y"][0] == pytest.approx(5.1)
    assert (max(band["y"]), line["customdata"][0]) == (pytest.approx(5.2), ["5", "5.2"])
    assert re.search(r"<th[^>]*>model.lr</th>", html)


def test_names_and_values_are_shown_and_never_believed(tmp_path: Path) -> None:
    run = write_run(tmp_path / HOSTILE.replace("/", "_"), model=f"a.{HOSTILE}", segments=[{**SEGMENT, "why": HOSTILE}])
    write_metrics(run, ("step", "train/<img src=x onerror=alert(2)>"), [(0, 1.0), (1, 2.0)])
    (run / "figures" / "<b>.png").write_bytes(PNG)
    report([str(run)], tmp_path / "out", title=HOSTILE)
    html = page(tmp_path / "out")
    body, _, _ = html.partition('<script type="application/json"')
    assert "<script" not in body
    assert "<img src=x" not in html
    assert "<b>" not in body
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in body
    assert "{{ 7 * 7 }}" in body


def test_the_policy_names_the_scripts_of_the_page_and_no_network(whole: Path) -> None:
    html = page(whole)
    plotly, own = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    (found,) = re.findall(r'Content-Security-Policy" content="(.*?)"', html)
    assert found.replace("&#39;", "'") == policy(plotly, own)
    assert "http" not in found
    assert "unsafe-inline" not in found.split("script-src")[1].split(";")[0]


def test_runs_in_every_state_have_a_page(tmp_path: Path) -> None:
    crashed = {**SEGMENT, "why": "NonFiniteError: train/loss is nan at step 7"}
    runs = [
        write_run(tmp_path / "crashed", segments=[crashed]),
        write_run(tmp_path / "running", segments=[{**SEGMENT, "end": None, "why": "running", "last_step": None}]),
        write_run(tmp_path / "begun", segments=[]),
        write_run(tmp_path / "diverged", lr=2.0),
        write_run(tmp_path / "damaged", lr=3.0),
    ]
    write_metrics(runs[3], ("step", "train/loss"), [(0, 1.0), (1, "nan"), (2, "inf")])
    (runs[4] / "metrics.csv").write_bytes(b"step,train/loss\r\n0,1.0\r\n1,")
    (runs[4] / "figures" / "samples.png").write_bytes(b"no picture")
    (runs[4] / "figures" / "depth_curve.csv").write_bytes(b"num_steps\x00,\xff\n\n")
    html = shown(*runs)
    for said in (
        "NonFiniteError: train/loss is nan at step 7",
        "running on somewhere, or killed there",
        "no segment: it never began",
        "train/loss is NaN in 1 rows, first at step 1",
        "train/loss is infinite at step 2",
        "the last row is cut short",
    ):
        assert said in html, said


def test_segments_that_ended_well_are_no_faults(tmp_path: Path) -> None:
    ends = ("finished", "stopped by SIGTERM", "finished")
    run = write_run(tmp_path / "run", segments=[{**SEGMENT, "why": why} for why in ends])
    assert "Faults" not in headings(shown(run))
    other = write_run(tmp_path / "other", segments=[{**SEGMENT, "why": why} for why in ("OSError: disk", "finished")])
    assert "OSError: disk" in shown(other).split("<h2>Faults</h2>")[1].split("</table>")[0]


@pytest.mark.parametrize("mark", ["config.yaml", "metrics.csv", "segments.json"])
def test_one_file_is_enough_for_a_page(tmp_path: Path, mark: str) -> None:
    run = tmp_path / "run"
    (write_run(tmp_path / "whole") / mark).rename(run.mkdir() or run / mark)  # type: ignore[func-returns-value]
    assert "Faults" in headings(shown(run))


def test_files_of_one_name_do_not_replace_each_other(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_metrics(run, ("step", "val/x y", "val/x-y", "val/X-Y"), [(0, 1, 2, 3), (1, 2, 3, 4)])
    assert {"val-X-Y", "val-x-y~2", "val-x-y~3"} <= set(content(shown(run))["figures"])


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run")
    assert main([str(run), "--title", "Mine"]) == 0
    assert capsys.readouterr().out.startswith(f"likeness: wrote {run / 'report' / INDEX} and ")
    assert "<title>Mine</title>" in page(run / "report")


def test_json_ends_no_script_and_knows_no_nan() -> None:
    text = as_json({"a": "</script><!--&"})
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"a": "</script><!--&"}
    assert numbers([1.23456789, float("nan"), float("-inf")]) == [1.23457, None, None]  # type: ignore[arg-type]


@pytest.mark.parametrize(("measure", "small"), [("kl", True), ("m_cca_f", False)])
def test_pages_show_what_is_alike_as_bright_too(measure: str, small: bool) -> None:
    """The heat map of a page runs in the direction of the other one, drawn by the page and as a file."""
    pairs = [("a", "b", 0.1), ("a", "c", 0.5), ("b", "c", 0.9)]
    rows: list[dict[str, Any]] = [{"model_a": a, "model_b": b, measure: value} for a, b, value in pairs]
    matrix = next(part for part in comparison_parts(rows, [], "comparison") if isinstance(part, Matrix))
    (trace,) = plot(matrix)["data"]
    assert (trace["colorscale"], trace["reversescale"]) == ("Viridis", small)
    (image,) = draw(matrix).axes[0].images
    assert image.get_cmap().name == ("viridis_r" if small else "viridis")
