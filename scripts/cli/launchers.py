"""Which processes were started to train together, as their launcher tells each of them."""

import os
from typing import NamedTuple

from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from scripts.cli.entry_point import UsageError


class Launch(NamedTuple):
    """``processes`` started by ``launcher``, equally many on each of ``nodes`` machines."""

    launcher: str
    processes: int
    nodes: int

    @property
    def per_node(self) -> int:
        """Processes, and so GPUs, of each machine."""
        return self.processes // self.nodes


def launch() -> Launch | None:
    """What torchrun or srun started; None where this process is the first, or one of Lightning's own.

    Raises UsageError for tasks that SLURM spread unequally, which Lightning cannot number.
    """
    if TorchElasticEnvironment.detect():
        processes, per_node = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        return Launch("torchrun", processes, processes // per_node)
    if not SLURMEnvironment.detect():
        return None
    tasks, nodes = int(os.environ["SLURM_NTASKS"]), int(os.environ.get("SLURM_NNODES", "1"))
    if tasks % nodes:
        raise UsageError(f"SLURM started {tasks} tasks on {nodes} nodes: give each the same number, --ntasks-per-node")
    return Launch("SLURM", tasks, nodes)


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
