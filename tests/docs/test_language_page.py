"""docs/subjects/language_models.md: its Python runs, its commands parse, its files are there."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import compare, hubness, inspect_head

BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PARSERS: dict[str, Callable[[], object]] = {
    "compare": compare.build_parser,
    "hubness": hubness.build_parser,
    "inspect_head": inspect_head.build_parser,
}


@pytest.fixture(scope="module")
def blocks() -> dict[str, list[str]]:
    text = (Path(__file__).resolve().parents[2] / "docs" / "subjects" / "language_models.md").read_text()
    found: dict[str, list[str]] = {"python": [], "bash": []}
    for kind, code in BLOCK.findall(text):
        found[kind].append(code)
    return found


def test_the_python_of_the_page_runs(
    blocks: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks["python"]
    names: dict[str, object] = {}
    exec(compile(code, "language_models.md", "exec"), names)
    assert "KL(1 || 2), nats" in capsys.readouterr().out
    found = names["found"]
    assert found.names == ("seed 0", "seed 1")  # type: ignore[attr-defined]
    assert 0 < found.kl_12 < 1  # type: ignore[attr-defined]


def test_the_commands_of_the_page_parse(blocks: dict[str, list[str]], root: Path) -> None:
    lines = "\n".join(blocks["bash"]).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("likeness ")]
    parsed = [words for words in commands if words[1] in PARSERS]
    assert len(parsed) == 6
    for words in parsed:
        PARSERS[words[1]]().parse_args(words[2:])  # type: ignore[attr-defined]
    configs = [word for words in commands for word in words if word.startswith("configs/")]
    assert len(configs) == 4
    assert [config for config in configs if not (root / config).is_file()] == []
