"""The documentation as a site: its contents have every page, it builds strictly and loads nothing from afar."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ASSET = re.compile(r"<(?:script|img|source)\b[^>]*\bsrc=\"(?:https?:)?//|<link\b[^>]*\bhref=\"(?:https?:)?//")
STYLE = re.compile(r"url\(['\"]?(?:https?:)?//|@import ['\"]?(?:https?:)?//")


def contents(docs: Path) -> list[str]:
    """The pages that the contents list, without their suffix."""
    trees = re.findall(r"```\{toctree\}\n(?::[^\n]*\n)*\n(.*?)```", (docs / "index.md").read_text(), re.S)
    return [page for tree in trees for page in tree.split()]


def test_the_contents_have_every_page_once(root: Path) -> None:
    docs = root / "docs"
    pages = sorted(str(page.relative_to(docs).with_suffix("")) for page in docs.rglob("*.md"))
    assert sorted(["index", *contents(docs)]) == pages


def test_what_would_be_loaded_from_afar_is_found() -> None:
    assert ASSET.search('<script async src="https://example.org/a.js">')
    assert ASSET.search('<link rel="stylesheet" href="//example.org/a.css">')
    assert STYLE.search("src: url('https://example.org/a.woff2')")
    assert not ASSET.search('<a href="https://example.org/"><img src="images/a.png">')


@pytest.mark.long
def test_the_site_builds_strictly_and_loads_nothing_from_afar(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(contents(root / "docs"))
    assert [page.name for page in pages if ASSET.search(page.read_text())] == []
    assert [style.name for style in (tmp_path / "site").rglob("*.css") if STYLE.search(style.read_text())] == []
    reference = (tmp_path / "site" / "reference" / "likeness.html").read_text()
    assert "<strong>permutations</strong>" in reference  # an argument, as an entry of a list
    assert "doctest" in reference
