"""Jobs side by side: how many at once, what becomes of the others where one fails, and of all where the parent goes."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from scripts.study.side_by_side import JobFailed, side_by_side


def note_process(job: str, folder: Path) -> None:
    (folder / job).write_text(str(os.getpid()))


def fail_or_wait(job: str, folder: Path) -> None:
    """``a`` fails as soon as ``b`` has begun, which waits for a signal; ``c`` must not begin."""

    def end(number: int, frame: object) -> None:
        (folder / "b saved").touch()
        sys.exit(0)

    if job == "b":
        signal.signal(signal.SIGTERM, end)
    (folder / f"{job} begins").touch()
    if job == "a":
        wait_for(folder / "b begins")
        raise ValueError("a failed")
    time.sleep(60)


def wait_for(file: Path) -> None:
    end = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < end, f"{file} is not there"
        time.sleep(0.01)


def note_and_sleep(job: str, folder: Path) -> None:
    (folder / f"{job}.tmp").write_text(str(os.getpid()))
    (folder / f"{job}.tmp").rename(folder / job)
    time.sleep(60)


def test_all_are_done_each_in_a_process_of_its_own(tmp_path: Path) -> None:
    side_by_side(partial(note_process, folder=tmp_path), "abc", 2)
    assert {path.name for path in tmp_path.iterdir()} == {*"abc"}
    assert len({os.getpid(), *(int(path.read_text()) for path in tmp_path.iterdir())}) == 4


def test_one_that_fails_ends_the_others_in_good_order(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(JobFailed, match="a job ended with status 1"):
        side_by_side(partial(fail_or_wait, folder=tmp_path), "abc", 2)
    assert {path.name for path in tmp_path.iterdir()} == {"a begins", "b begins", "b saved"}
    assert capfd.readouterr().err == "likeness: error: a failed\n"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_none_outlives_a_parent_that_is_killed(tmp_path: Path, root: Path) -> None:
    program = (
        "from functools import partial\nfrom pathlib import Path\n"
        "from scripts.study.side_by_side import side_by_side\n"
        "from tests.scripts.study.test_side_by_side import note_and_sleep\n"
        f"if __name__ == '__main__': side_by_side(partial(note_and_sleep, folder=Path({str(tmp_path)!r})), 'ab', 2)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=root)
    try:
        for job in "ab":
            wait_for(tmp_path / job)
    finally:
        parent.kill()
        parent.wait()
    end = time.monotonic() + 60
    while any(runs(int((tmp_path / job).read_text())) for job in "ab"):
        assert time.monotonic() < end, "a job is still running"
        time.sleep(0.01)


def runs(process: int) -> bool:
    """Whether there is such a process that has not ended, noticed or not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
