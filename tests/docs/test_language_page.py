"""docs/subjects/language_models.md, and what the page on comparing says of language models: their Python runs."""

from pathlib import Path

import pytest

from tests.docs.reader import blocks, run_python


def test_the_python_of_the_page_runs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = root / "docs" / "subjects" / "language_models.md"
    (code,) = (content for language, content in blocks(page) if language == "python")
    names: dict[str, object] = {}
    assert "KL(1 || 2), nats" in run_python(code, names, page.name)
    found = names["found"]
    assert found.names == ("seed 0", "seed 1")  # type: ignore[attr-defined]
    assert 0 < found.kl_12 < 1  # type: ignore[attr-defined]

    page = root / "docs" / "how-to" / "compare.md"
    (code,) = (content for language, content in blocks(page) if language == "python" and "Texts" in content)
    Path("texts.txt").write_text("\n".join(names["texts"]))  # type: ignore[arg-type]
    names["a"], names["b"] = names["models"]  # type: ignore[misc]
    names["c"] = names["a"]
    small = code.replace('"hf:A", "model.gguf"', "a, b").replace('"bos"', '"separator"')  # no hub; bytes have no bos
    run_python(small, names, page.name)
    assert Path("runs/three").is_dir()
