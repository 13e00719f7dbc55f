"""How many processes train together, as torchrun and SLURM say it."""

import os

import pytest

from scripts.cli.entry_point import UsageError, by_srun, rank
from scripts.cli.launchers import MEETING_POINT, Launch, launch, require_all_used, require_equal_shares, start_alone
from scripts.cli.watch import RANK_0

VARIABLES = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", RANK_0),
    *(
        "SLURM_NTASKS",
        "SLURM_NTASKS_PER_NODE",
        "SLURM_NNODES",
        "SLURM_PROCID",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_JOB_NAME",
    ),
    *MEETING_POINT,
)
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "RANK": "5"}
JOB = {"SLURM_NTASKS": "6", "SLURM_NNODES": "3", "SLURM_JOB_NAME": "likeness"}
SLURM = {**JOB, "SLURM_PROCID": "4", "SLURM_STEP_NUM_TASKS": "6"}
BATCH_SCRIPT = {**JOB, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def started_with(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> Launch | None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return launch()


def test_a_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch() is None
    assert rank() == 0
    monkeypatch.setenv(RANK_0, "1")
    monkeypatch.setenv("LOCAL_RANK", "1")  # one that rank 0 started
    assert launch() is None
    assert rank() == 1
    assert start_alone("auto", 1).local_rank() == 1


def test_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    assert started_with(monkeypatch, TORCHRUN) == Launch("torchrun", 8, 2)
    assert rank() == 5


def test_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    started = started_with(monkeypatch, SLURM)
    assert started == Launch("SLURM", 6, 3)
    assert started.per_node == 2
    assert rank() == 4


def test_torchrun_inside_slurm_is_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    assert started_with(monkeypatch, {**SLURM, **TORCHRUN}) == Launch("torchrun", 8, 2)
    assert rank() == 5


def test_a_task_of_srun_in_an_interactive_job_is_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    started = started_with(monkeypatch, {**SLURM, "SLURM_JOB_NAME": "interactive"})
    assert started == Launch("SLURM", 6, 3)
    assert started.environment.global_rank() == rank() == 4


@pytest.mark.parametrize("shell", ["bash", "interactive"])
@pytest.mark.parametrize("job", [JOB, BATCH_SCRIPT])
def test_an_interactive_shell_under_slurm_starts_its_own(
    shell: str, job: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert started_with(monkeypatch, {**job, "SLURM_JOB_NAME": shell}) is None
    assert not start_alone("auto", 1).creates_processes_externally


@pytest.mark.parametrize("job", [JOB, BATCH_SCRIPT])
def test_a_batch_script_of_many_tasks_needs_srun(job: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert started_with(monkeypatch, job) is None
    assert rank() == 0
    with pytest.raises(UsageError, match=r"has 6 tasks, .* put srun before"):
        start_alone("auto", 1)
    assert not start_alone(2, 1).creates_processes_externally  # it says how many it starts itself


def test_a_job_of_one_task_is_alone_with_and_without_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    for job in (BATCH_SCRIPT, {**SLURM, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}):
        assert started_with(monkeypatch, {**job, "SLURM_NTASKS": "1", "SLURM_NNODES": "1"}) is None
        assert not start_alone("auto", 1).creates_processes_externally


def test_tasks_without_a_number_a_node_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    started = started_with(monkeypatch, SLURM)
    assert started is not None
    started.environment.validate_settings(num_devices=2, num_nodes=3)


ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "node7", "MASTER_PORT": "1"}


def test_what_a_launcher_left_for_one_process_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    assert started_with(monkeypatch, ALONE) is None
    environment = start_alone("auto", 1)
    assert not environment.creates_processes_externally  # with LOCAL_RANK Lightning would wait for the others
    assert environment.main_address == "127.0.0.1"
    assert environment.main_port > 1
    assert not os.environ.keys() & ALONE.keys()


@pytest.mark.parametrize(
    "left",
    [{"RANK": "1"}, {"LOCAL_RANK": "1"}, {"WORLD_SIZE": "2"}, {"NODE_RANK": "1"}, {**TORCHRUN, **ALONE, "RANK": "5"}],
)
def test_what_a_launcher_left_for_one_of_many_is_refused(left: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    left = {name: value for name, value in left.items() if name != "TORCHELASTIC_RUN_ID"}
    assert started_with(monkeypatch, left) is None
    assert rank() == 0  # whoever asks before: its errors, and what it writes, are those of a process alone
    with pytest.raises(UsageError, match=r"=\d in the environment, but neither torchrun nor srun has started"):
        start_alone("auto", 1)


def test_several_machines_need_a_launcher() -> None:
    with pytest.raises(UsageError, match=r"trainer\.num_nodes 2: "):
        start_alone(4, 2)


def test_srun_is_told_from_a_batch_script(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not by_srun()
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert not by_srun()
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert by_srun()


def test_unequal_nodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="6 tasks on 4 nodes"):
        started_with(monkeypatch, {**SLURM, "SLURM_NNODES": "4"})


def test_the_trainer_uses_what_was_started() -> None:
    require_all_used(None, 4)
    require_all_used(Launch("SLURM", 8, 2), 8)
    with pytest.raises(UsageError, match=r"SLURM started 8 processes on 2 nodes, but .*trainer\.num_nodes is 4"):
        require_all_used(Launch("SLURM", 8, 2), 4)


def test_the_global_batch_is_shared_equally_or_refused() -> None:
    require_equal_shares(None, 3)
    require_equal_shares(12, 4)
    with pytest.raises(UsageError, match=r"data\.batch_size 10 .* world size 4: take 8 or 12"):
        require_equal_shares(10, 4)
    with pytest.raises(UsageError, match=r"take 4$"):
        require_equal_shares(3, 4)
