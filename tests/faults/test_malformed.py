"""Every malformed configuration ends with status 2 and one line that names what is wrong."""

from pathlib import Path

import pytest

from scripts.cli.entry_point import run_command
from scripts.train import main
from tests.faults.malformed import BASES, Malformed, malformed

CASES = malformed()
EVERY = 10  # of the cases belong to the short run
SHORT = ("--trainer.accelerator", "cpu", "--trainer.max_steps", "1", "--trainer.enable_progress_bar", "false")


def test_there_are_enough_of_every_kind() -> None:
    assert len({(case.base, case.options) for case in CASES}) >= 200
    assert {case.kind for case in CASES} == {"key", "type", "class", "range", "file"}
    assert {case.base for case in CASES} == BASES.keys()


@pytest.mark.parametrize("case", CASES[::EVERY], ids=lambda case: case.name)
def test_some_are_refused_by_name(
    case: Malformed, tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_refusal(case, tmp_path, root, capsys)


@pytest.mark.long
@pytest.mark.parametrize("case", [c for i, c in enumerate(CASES) if i % EVERY], ids=lambda case: case.name)
def test_all_are_refused_by_name(
    case: Malformed, tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_refusal(case, tmp_path, root, capsys)


def require_refusal(case: Malformed, run_dir: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ("--config", str(root / BASES[case.base]))
    with pytest.raises(SystemExit) as end:
        run_command(main, ["fit", *config, *SHORT, "--run_dir", str(run_dir / "run"), *case.options])
    errors = capsys.readouterr().err
    last = errors.strip().splitlines()[-1]
    assert end.value.code == 2, errors
    assert last.startswith("likeness: error: ")
    assert case.named in last
    assert "Traceback" not in errors
    assert not (run_dir / "run" / "checkpoints").exists()
