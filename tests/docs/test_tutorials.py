"""Tutorials are played from their first line to their last; how-to pages run their Python."""

import contextlib
import re
from pathlib import Path

import pytest

from datamodules import Digits
from tests.docs.reader import Reader, agree, blocks, run_python

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


@pytest.mark.parametrize(
    ("shown", "right"),
    [
        ("text\nnll 0.25, step 29", True),
        ("text\nnll 0.26, step 29", True),
        ("text\nnll 0.31, step 29", False),
        ("text within=0.3\nnll 0.31, step 29", True),
        ("text\nnll 0.25, step 30", False),
        ("text\naccuracy 0.25, step 29", False),
    ],
)
def test_what_is_not_printed_is_found(shown: str, right: bool, reader: Reader, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```python\nprint('nll 0.25,  step 29')\n```\n\n```{shown}\n```\n")
    with contextlib.nullcontext() if right else pytest.raises(AssertionError, match=re.escape(shown[5:])):
        reader.play(page)


@pytest.mark.parametrize(
    ("shown", "printed", "alike"),
    [
        ("│ kl    │ 1.201 │", "│ kl │ 1.219 │", True),
        ("│ kl    │ 1.201 │", "│ kl │ 12.3e-05 │", False),
        ("moves by 2e-15", "moves by -9e-13", True),
        ("moves by 2e-15", "moves by 0e+00", True),
        ("moves by 2e-15", "moves by 2e-11", False),
        ("latent 3.8e-05", "latent 2.6e-05", True),
        ("latent 3.8e-05", "latent 3.1e-06", False),
        ("latent 3.8e-05", "latent -3.8e-05", False),
        ("1,021,665 ids", "1021665 ids", True),
        ("\u22120.5", "-0.51", True),
        ("siblings#1", "siblings#2", False),
        ("k-skewness  1.5", "k-skewness 1.5", True),
        ("bpd 8.77 ...", "bpd 8.77  0.22", True),
        ("bpd 8.77 ...", "bpd 6.77  0.22", False),
        ("bpd 8.77", "bpd 8.77  0.22", False),
    ],
)
def test_lines_agree_by_their_words_and_numbers(shown: str, printed: str, alike: bool) -> None:
    assert agree(shown, printed) is alike
