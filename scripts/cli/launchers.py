"""Which processes train together: those that torchrun or srun started, or those that this one starts itself."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.utilities.distributed import _set_num_threads_if_needed
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from scripts.cli.entry_point import UsageError, by_srun
from scripts.cli.watch import RANK_0, look_after

# What launchers tell their processes, and the values of a process that is alone.
OF_RANKS = {"RANK": "0", "LOCAL_RANK": "0", "NODE_RANK": "0", "GROUP_RANK": "0", "WORLD_SIZE": "1"}
MEETING_POINT = ("MASTER_ADDR", "MASTER_PORT")
SHELLS = ("bash", "interactive")  # names of jobs that SLURM gives a terminal


class Launch(NamedTuple):
    """``processes`` started by ``launcher``, equally many on each of ``nodes`` machines."""

    launcher: str
    processes: int
    nodes: int

    @property
    def per_node(self) -> int:
        """Processes, and so GPUs, of each machine."""
        return self.processes // self.nodes

    @property
    def environment(self) -> ClusterEnvironment:
        """Where Lightning reads each process's number; SLURM's jobs are put back by their script, not by Lightning."""
        return TorchElasticEnvironment() if self.launcher == "torchrun" else SLURMEnvironment(auto_requeue=False)


def launch() -> Launch | None:
    """The processes that torchrun or srun started, this one among them; None where this one starts the others.

    Raises UsageError for tasks that SLURM spread unequally, which Lightning cannot number.
    """
    if TorchElasticEnvironment.detect():
        processes, per_node = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        return Launch("torchrun", processes, processes // per_node)
    tasks, nodes = int(os.environ.get("SLURM_NTASKS") or 1), int(os.environ.get("SLURM_NNODES") or 1)
    if RANK_0 in os.environ or not by_srun() or tasks == 1:
        return None
    if tasks % nodes:
        raise UsageError(f"SLURM started {tasks} tasks on {nodes} nodes: give each the same number, --ntasks-per-node")
    os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(tasks // nodes))  # Lightning asks for it
    return Launch("SLURM", tasks, nodes)


def start_alone(devices: object, num_nodes: int) -> ClusterEnvironment:
    """Where Lightning reads the numbers of processes that it starts itself: not in what other launchers have left.

    Raises UsageError where this process has been told of others that nobody has started, for which it would wait.
    """
    if RANK_0 not in os.environ:
        _require_no_others(devices, num_nodes)
        for name in (*OF_RANKS, *MEETING_POINT):
            os.environ.pop(name, None)
    return LightningEnvironment()


def _require_no_others(devices: object, num_nodes: int) -> None:
    told = {name: os.environ.get(name) or alone for name, alone in OF_RANKS.items()}
    told = {name: value for name, value in told.items() if value != OF_RANKS[name]}
    if told:
        said = ", ".join(f"{name}={value}" for name, value in told.items())
        raise UsageError(
            f"{said} in the environment, but neither torchrun nor srun has started this process: use one of the "
            "launchers in scripts/launch, or unset them"
        )
    tasks = os.environ.get("SLURM_NTASKS") or "1"
    # A script that says how many devices its machine has starts the processes itself.
    if devices == "auto" and tasks != "1" and not by_srun() and os.environ.get("SLURM_JOB_NAME") not in SHELLS:
        raise UsageError(
            f"SLURM's job has {tasks} tasks, and srun has not started this process: put srun before the command, as "
            "scripts/launch/slurm.sbatch does, or say --trainer.devices to train on this machine alone"
        )
    if num_nodes > 1:
        raise UsageError(f"trainer.num_nodes {num_nodes}: several machines take scripts/launch/torchrun.sh, or srun")


class RankLauncher(_SubprocessScriptLauncher):
    """Lightning's launcher of ranks on one machine, whose ranks and rank 0 notice each other's death.

    Lightning's own observer looks every five seconds and then kills rank 0 without a word, also one that was closing
    its loggers; a rank whose rank 0 was killed stays for ever.
    """

    def launch(self, function: Callable[..., Any], *args: Any, trainer: pl.Trainer | None = None, **kwargs: Any) -> Any:
        if not self.cluster_environment.creates_processes_externally:
            os.environ[RANK_0] = str(os.getpid())
            try:
                self._call_children_scripts()
            finally:
                del os.environ[RANK_0]
            look_after(self.procs)
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)


def notice_lost_ranks(trainer: pl.Trainer) -> None:
    """Give the trainer a ``RankLauncher`` in place of Lightning's."""
    theirs = trainer.strategy.launcher
    if isinstance(theirs, _SubprocessScriptLauncher):
        trainer.strategy._launcher = RankLauncher(theirs.cluster_environment, theirs.num_processes, theirs.num_nodes)


def require_all_used(started: Launch | None, world_size: int) -> None:
    """Raise UsageError where a trainer of ``world_size`` processes would leave some out, or wait for others."""
    if started is None or started.processes == world_size:
        return
    raise UsageError(
        f"{started.launcher} started {started.processes} processes on {started.nodes} nodes, but trainer.devices x "
        f"trainer.num_nodes is {world_size}: leave both out, and each process has one device"
    )


def require_equal_shares(batch_size: int | None, world_size: int) -> None:
    """Raise UsageError where the global batch cannot be divided: DDP weighs all ranks' means alike."""
    if batch_size is not None and batch_size % world_size:
        below, above = batch_size - batch_size % world_size, batch_size + -batch_size % world_size
        nearest = f"{below} or {above}" if below else f"{above}"
        raise UsageError(
            f"data.batch_size {batch_size} is over all processes and does not divide by the world size {world_size}: "
            f"take {nearest}"
        )
