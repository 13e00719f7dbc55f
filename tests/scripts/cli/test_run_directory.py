"""Who may start in a run directory, what of it is removed, and what continues from it."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from callbacks.run import run_files
from callbacks.run.checkpoints import AtomicCheckpointIO
from callbacks.run.run_files import LIST, note
from lightning_modules.checkpoint_files import CheckpointError
from scripts.cli import run_directory
from scripts.cli.entry_point import UsageError
from tests.integration.commands import Process


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder with their content, and where links lead."""
    paths = (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    content = {path: os.readlink(path).encode() if path.is_symlink() else path.read_bytes() for path in paths}
    return {str(path.relative_to(folder)): value for path, value in content.items()}


def begin(run_dir: Path, *names: str) -> None:
    """What a run leaves: its list, and these files."""
    run_directory.enter(run_dir, "test")
    for name in names:
        write(run_dir / name, "a run's")
        note(run_dir / name)


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


OWN = ("config.yaml", "metrics.csv", "segments.json", "weights.safetensors", "checkpoints/best.ckpt", "figures/kl.png")
FOREIGN = (
    "config.yaml",
    "metrics.csv",
    "wandb_id",
    "checkpoints/model.pt",
    "figures/a/b.png",
    "wandb/run-1/x",
    "wandb",
)


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_others_are_named_and_nothing_is_changed(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, "mine")
    write(tmp_path / "notes.txt", "mine")
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match=f"no run's: {name}"):
        run_directory.enter(tmp_path, "fit")
    assert files(tmp_path) == before
    assert not (tmp_path / ".likeness").exists()


@pytest.mark.parametrize("name", FOREIGN)
def test_a_run_is_not_overwritten_where_files_of_others_stand_among_its_own(tmp_path: Path, name: str) -> None:
    begin(tmp_path, *(own for own in OWN if own != name))
    write(tmp_path / name, "mine")
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match=f"no run's: {name}"):
        run_directory.claim(tmp_path, overwrite=True)
    assert files(tmp_path) == before


def test_a_folder_where_a_file_of_a_run_stood_is_not_the_runs(tmp_path: Path) -> None:
    begin(tmp_path, *OWN[1:])
    write(note(tmp_path / "config.yaml") / "mine", "mine")
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match=r"no run's: config.yaml\."):
        run_directory.claim(tmp_path, overwrite=True)
    assert files(tmp_path) == before


def test_overwrite_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "notes.txt", "mine")
    begin(tmp_path, *OWN, "wandb/offline-run-1-abc/run.wandb", "test_metrics.csv")
    note(tmp_path / "wandb" / "offline-run-1-abc")
    write(tmp_path / "checkpoints" / ".best.ckpt.tmp", "killed in a save")
    write(tmp_path / "figures" / ".kl.png.0123456789ab.tmp", "killed in a save")
    os.symlink("offline-run-1-abc", note(tmp_path / "wandb" / "latest-run"))
    inner = tmp_path / "figures" / "another_run"
    begin(inner, "config.yaml")
    with pytest.raises(
        FileExistsError, match=r"already holds a run \(checkpoints/.best.ckpt.tmp.*--auto_resume.*--over"
    ):
        run_directory.claim(tmp_path, overwrite=False)
    (inner / "config.yaml").rename(tmp_path / "kept")
    write(tmp_path / "figures" / "mine.png", "mine")
    with pytest.raises(FileExistsError, match=r"no run's: figures/another_run/.likeness/written, figures/mine.png\."):
        run_directory.claim(tmp_path, overwrite=True)
    (tmp_path / "figures" / "mine.png").unlink()
    shutil.rmtree(inner)
    run_directory.claim(tmp_path, overwrite=True)
    assert files(tmp_path).keys() == {"notes.txt", "kept", ".likeness/written"}
    assert not (tmp_path / "wandb").exists() or not any((tmp_path / "wandb").iterdir())


@pytest.mark.parametrize("link", ["checkpoints", "config.yaml", "figures/kl.png"])
def test_links_are_not_followed(tmp_path: Path, link: str) -> None:
    run_dir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    begin(run_dir, *OWN)
    (run_dir / link).rename(elsewhere)
    (run_dir / link).symlink_to(elsewhere)
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match=f"no run's: {link}.*{link}: symbolic links"):
        run_directory.claim(run_dir, overwrite=True)
    assert files(tmp_path) == before


def test_a_list_that_leads_out_of_the_run_is_not_believed(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    begin(run_dir, *OWN)
    write(tmp_path / "mine.txt", "mine")
    with (run_dir / LIST).open("a") as lines:
        lines.write(
            f'\n"../mine.txt"\n"{tmp_path}/mine.txt"\n"checkpoints/../../mine.txt"\n17\n"/"\n"."\n"./"\n"cut sho'
        )
    write(note(run_dir / "figures" / "cka.png"), "a run's")
    run_directory.claim(run_dir, overwrite=True)
    assert files(tmp_path).keys() == {"mine.txt", "run/.likeness/written"}


def old_run(run_dir: Path) -> None:
    """What a run left before runs had lists of their files."""
    segment = {"first_step": 0, "last_step": 18, "why": "finished", "versions": {"likeness": "0.1"}}
    write(run_dir / "segments.json", json.dumps([segment]))
    write(run_dir / "config.yaml", f"run_dir: {run_dir}\n")
    write(run_dir / "metrics.csv", "step\n0\n")
    _run(run_dir / "checkpoints", "last.ckpt")


def test_a_run_without_a_list_is_known_by_its_segments(tmp_path: Path) -> None:
    old_run(tmp_path)
    write(tmp_path / "figures" / "kl.png", "whose?")
    run_directory.enter(tmp_path, "test")
    with pytest.raises(FileExistsError, match=r"no run's: figures/kl.png\."):
        run_directory.claim(tmp_path, overwrite=True)
    (tmp_path / "figures" / "kl.png").unlink()
    run_directory.claim(tmp_path, overwrite=True)
    assert files(tmp_path).keys() == {".likeness/written"}


@pytest.mark.parametrize("old", [True, False])
def test_a_run_whose_checkpoints_are_gone_is_not_begun_anew(tmp_path: Path, old: bool) -> None:
    if old:
        old_run(tmp_path)
        run_directory.enter(tmp_path, "test")
    else:
        begin(tmp_path, *OWN[:2], "checkpoints/last.ckpt")
    run_directory.refuse_lost_checkpoints(tmp_path)
    (tmp_path / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(FileNotFoundError, match=r"has trained.* no checkpoint in .*: bring it back.*--overwrite"):
        run_directory.refuse_lost_checkpoints(tmp_path)
    run_directory.claim(tmp_path, overwrite=True)
    run_directory.refuse_lost_checkpoints(tmp_path)


@pytest.mark.parametrize(
    ("subcommand", "name"),
    [("test", "test_metrics.csv"), ("predict", "predictions.npz"), ("validate", "validate_metrics.csv")],
)
def test_an_evaluation_writes_over_its_own_file_only(tmp_path: Path, subcommand: str, name: str) -> None:
    begin(tmp_path, *OWN, name)
    run_directory.enter(tmp_path, subcommand)
    run_files.forget_all(tmp_path)
    with pytest.raises(FileExistsError, match=f"no run's: {name}"):
        run_directory.enter(tmp_path, subcommand)


@pytest.mark.parametrize("name", ["", " ", "\t"])
def test_an_empty_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="--run_dir is empty"):
        run_directory.resolve(name)


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_an_unwritable_directory_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=f"run_dir .*{name} cannot be written"):
        run_directory.enter(tmp_path / name, "fit")


@pytest.mark.parametrize("name", ["last", "best", "nowhere.ckpt"])
def test_a_missing_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=name):
        run_directory.checkpoint_path(tmp_path, name)


def _run(folder: Path, *names: str) -> Path:
    for age, name in enumerate(names):
        AtomicCheckpointIO().save_checkpoint({"pytorch-lightning_version": "2", "state_dict": {}}, folder / name)
        os.utime(folder / name, (age, age))
    return folder


def test_the_newest_whole_checkpoint_stands_in_for_a_damaged_one(tmp_path: Path, capsys: Any) -> None:
    folder = _run(tmp_path / "checkpoints", "best.ckpt", "last.ckpt", "previous.ckpt")
    assert run_directory.checkpoint_path(tmp_path, "last") == folder / "last.ckpt"
    assert capsys.readouterr().err == ""
    (folder / "last.ckpt").unlink()
    assert run_directory.checkpoint_path(tmp_path, "last") == folder / "previous.ckpt"
    assert (
        f"there is no checkpoint {folder}/last.ckpt; continuing from {folder}/previous.ckpt" in capsys.readouterr().err
    )
    (folder / "previous.ckpt").write_bytes(b"PK")
    assert run_directory.checkpoint_path(tmp_path, "last") == folder / "best.ckpt"
    assert "previous.ckpt is refused" in capsys.readouterr().err
    (folder / "best.ckpt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint .*last\.ckpt; (.*(previous|best)\.ckpt is ){2}"):
        run_directory.checkpoint_path(tmp_path, "last")


def test_a_directory_in_use_is_refused_until_its_process_ends(tmp_path: Path) -> None:
    code = (
        "import pathlib, time; from scripts.cli import run_directory; "
        f"run_directory.enter(pathlib.Path({str(tmp_path)!r}), 'fit'); print('held', flush=True); time.sleep(600)"
    )
    holder = Process("-c", code)
    holder.wait(lambda: "held" in holder.output)
    with pytest.raises(BlockingIOError, match=rf"run_dir .* is in use: process {holder.pid} on .* is training there"):
        run_directory.enter(tmp_path, "fit")
    holder.signal(signal.SIGKILL)
    assert holder.end().status == -signal.SIGKILL
    run_directory.enter(tmp_path, "fit")
