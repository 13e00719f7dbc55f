"""Tutorials are played from their first line to their last; how-to pages run their Python."""

import contextlib
import re
from pathlib import Path

import pytest

from datamodules import Digits
from tests.docs.reader import Reader, blocks, run_python, shape

DOCS = Path(__file__).resolve().parents[2] / "docs"
TUTORIALS = sorted(DOCS.glob("tutorials/*.md"))
WITH_PYTHON = [DOCS / "how-to" / f"{name}.md" for name in ("model", "measure", "callback")]
GOES_ON = re.compile(r"^This goes on from \[.*?\]\((\w+\.md)\)", re.MULTILINE)


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Reader:
    """One for all pages: those that go on from another find its runs."""
    return Reader(tmp_path_factory.mktemp("reader"), root)


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_the_tutorial_plays_and_prints_what_it_shows(page: Path, reader: Reader) -> None:
    assert {language for language, _ in blocks(page)} <= {"bash", "python", "text"}
    reader.play(page, *(page.parent / name for name in GOES_ON.findall(page.read_text())))


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_the_python_of_the_page_runs(page: Path, reader: Reader) -> None:
    reader.play(page)


def test_the_python_of_the_evidence_runs(reader: Reader) -> None:
    """Of the tutorial's DiffEnc under the names of both models."""
    reader.play(DOCS / "tutorials" / "diffenc_digits.md")
    for name in ("vdm_0", "diffenc_0"):
        (reader.folder / "runs" / name).symlink_to("diffenc")
    digits = Digits()
    digits.setup("test")
    (code,) = (content for language, content in blocks(DOCS / "evidence.md") if language == "python")
    names: dict[str, object] = {"loader": [batch.x[:40] for batch in digits.test_dataloader()]}
    with contextlib.chdir(reader.folder):
        run_python(code, names, "evidence.md")
    alike = names["found"].diagonal("m_cca")  # type: ignore[attr-defined]
    assert list(alike.values()) == pytest.approx([1, 1, 1, 1])


def test_what_is_not_printed_is_found(reader: Reader, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint('nll 0.25')\n```\n\n```text\nnll 0.31\n```\n")
    reader.play(page)
    page = tmp_path / "wrong.md"
    page.write_text("```python\nprint('nll 0.25')\n```\n\n```text\naccuracy 0.31\n```\n")
    with pytest.raises(AssertionError, match="accuracy"):
        reader.play(page)


def test_numbers_and_rules_do_not_count() -> None:
    assert shape("│ kl    │ 1.201 │") == shape("│ kl │ 12.3e-05 │")
    assert shape("k-skewness  1.5") == "k skewness #"
