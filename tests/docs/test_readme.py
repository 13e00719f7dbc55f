"""README.md and the start page: their Python runs and prints what it says; the README stays one screen."""

from pathlib import Path

import pytest
import torch

from tests.docs.reader import blocks, run_python


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


def python(page: Path) -> str:
    """The one block of Python of the page."""
    (code,) = (content for language, content in blocks(page) if language == "python")
    return code


def test_the_python_of_the_readme_runs(root: Path, tmp_path: Path) -> None:
    printed = run_python(python(root / "README.md"), {}, "README.md")
    assert "linear_cka" in printed
    assert (tmp_path / "runs" / "two_models" / "comparison.csv").is_file()


def test_the_readme_is_one_screen_with_one_picture(root: Path) -> None:
    text = (root / "README.md").read_text()
    assert len(text.splitlines()) <= 55
    assert text.count("![") == 1
    assert len(python(root / "README.md").splitlines()) <= 10


def test_the_python_of_the_start_page_prints_what_it_says(root: Path) -> None:
    code = python(root / "docs" / "start.md")
    printed = run_python(code, {}, "start.md").splitlines()
    promised = [line.partition("#")[2].strip() for line in code.splitlines() if line.startswith("print(f")]
    assert printed[0] == promised[0]
    assert len(printed) == 3
