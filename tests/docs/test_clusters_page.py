"""docs/how-to/clusters.md against the launchers: every command is one that runs, and its table of shares is right."""

import re
import shlex
from pathlib import Path

import pytest

from scripts.cli.entry_point import UsageError
from scripts.cli.launchers import require_equal_shares
from tests.integration.launchers import ended, start

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "clusters.md"
TEXT = PAGE.read_text()
COMMANDS = [line for block in re.findall(r"^```\n(.*?)^```", TEXT, re.M | re.S) for line in block.splitlines()]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_runs(line: str, root: Path) -> None:
    words = shlex.split(line)
    launcher = next(word for word in words if word.startswith("scripts/launch/"))
    before, after = words[: words.index(launcher)], words[words.index(launcher) + 1 :]
    assert (root / launcher).exists()
    assert before in ([], ["bash"]) or before[0] == "sbatch"
    dry = ended(start(Path(launcher).name, "--dry-run", *(word for word in after if word != "--dry-run")))
    assert dry.status == 0, dry.output
    assert [word for word in after if word.startswith("configs/") and not (root / word).exists()] == []


def test_the_table_of_shares_is_right() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", TEXT, re.M)
    assert len(rows) == 2
    for size, cells in rows:
        for processes, said in zip((1, 4, 16, 6), cells.split(" | "), strict=True):
            if said.isdigit():
                require_equal_shares(int(size), processes)
                assert int(said) * processes == int(size)
            else:
                with pytest.raises(UsageError, match=said.removeprefix("refused: ")):
                    require_equal_shares(int(size), processes)
