"""Notebooks are kept without outputs and run from their first cell to their last, as a kernel runs them."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import torch

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


def cells(notebook: Path) -> list[dict[str, Any]]:
    """The cells of code."""
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def run(code: str, names: dict[str, object]) -> object:
    """What a cell displays: the value of its last line, if that is an expression."""
    tree = ast.parse(code)
    last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None  # type: ignore[attr-defined]
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(last, "cell", "eval"), names)


def shown(value: object) -> str:
    """As a notebook shows it."""
    html = getattr(value, "_repr_html_", None)
    return str(html() if html else value)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(notebook: Path) -> None:
    content = json.loads(notebook.read_text())
    assert (content["nbformat"], content["metadata"]["language_info"]) == (4, {"name": "python"})
    assert [cell["id"] for cell in cells(notebook) if cell["outputs"] or cell["execution_count"] is not None] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {"__name__": "__main__"}
    displayed = [shown(run("".join(cell["source"]), names)) for cell in cells(notebook)]
    expected = {"compare_two_models": "linear_cka", "watch_a_training": "similarity/m_cca_f/mean"}[notebook.stem]
    assert any("<table" in text and expected in text for text in displayed)


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) == 2
