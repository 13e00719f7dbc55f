"""Fully sharded data parallelism (FSDP2): every rank holds its share of the weights and optimiser states."""

from collections.abc import Sequence
from datetime import timedelta

from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from typing_extensions import override


class ShardedDataParallel(ModelParallelStrategy):
    """Data-parallel over all ranks with sharded weights, for modules whose ``configure_model`` shards them.

    Checkpoints are single files with whole tensors, as DDP writes them: any number of ranks continues from them, and
    every command reads them. Weight averaging (EMA) is not supported by Lightning here.
    """

    def __init__(self, timeout: timedelta = timedelta(minutes=30)) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=timeout)

    @override
    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard(model: nn.Module, layers: Sequence[nn.Module], mesh: DeviceMesh, methods: Sequence[str] = ()) -> None:
    """Shard each of ``layers``, which are gathered one at a time when they are used, and what is left of ``model``.

    What is left is gathered when the model is called, and for each of its ``methods`` that use it besides.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for method in methods:
        register_fsdp_forward_method(model, method)


def whole(weight: Tensor) -> Tensor:
    """A weight with the shares of all ranks in it; all ranks must ask. One that is not sharded as it is."""
    gather = getattr(weight, "full_tensor", None)
    return weight if gather is None else gather()
