"""Fully sharded data parallelism (FSDP2): every rank holds its share of the weights and optimiser states."""

from datetime import timedelta

from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from typing_extensions import override


class ShardedDataParallel(ModelParallelStrategy):
    """Data-parallel over all ranks with sharded weights, for modules whose ``configure_model`` shards them.

    Checkpoints are single files with whole tensors, as DDP writes them: any number of ranks continues from them, and
    every door reads them. Weight averaging (EMA) is not supported by Lightning here.
    """

    def __init__(self, timeout: timedelta = timedelta(minutes=30)) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=timeout)

    @override
    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard(model: nn.Module, layers: list[nn.Module], mesh: DeviceMesh) -> None:
    """Shard each of ``layers``, which are gathered one at a time when they are used, and what is left of ``model``."""
    from torch.distributed.fsdp import fully_shard

    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
