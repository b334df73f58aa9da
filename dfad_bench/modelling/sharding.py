"""How a module lies on the ranks that train it: a copy on each, or a share of every parameter; its state is always whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from dfad_bench.modelling.distributed import Ranks
from dfad_bench.types import Batch

Tensors = Mapping[str, torch.Tensor]


def shard(module: nn.Module, ranks: Ranks, device: torch.device) -> None:
    """Leave each rank a share of every parameter (FSDP2); the others' are fetched where a forward or a backward needs them.

    In place, on a device; names stay as they were. A module may name blocks by ``sharded_blocks()``, modules that are only
    ever run through their forward: then one block at a time is whole, and otherwise the whole module while it runs.
    Parameters of no dimension stay whole on every rank.
    """
    if is_sharded(module):
        return
    mesh = init_device_mesh(device.type, (ranks.world_size,))
    scalars = {parameter for parameter in module.parameters() if parameter.ndim == 0}
    blocks: Callable[[], Iterable[nn.Module]] = getattr(module, "sharded_blocks", tuple)
    for each in (*blocks(), module):
        fully_shard(each, mesh=mesh, ignored_params=scalars)
    if hasattr(module, "loss"):
        register_fsdp_forward_method(module, "loss")


def is_sharded(module: nn.Module) -> bool:
    """Return whether ranks hold shares of a module, so that all must run it at once, even where one has no batch."""
    return isinstance(module, FSDPModule)


def without_gradients(module: nn.Module) -> Any:
    """Return the context in which a module is evaluated: what FSDP gathers in inference mode cannot be trained on later."""
    return torch.no_grad() if is_sharded(module) else torch.inference_mode()


def synchronise_batch_norm(module: nn.Module) -> None:
    """Let batch normalisation see the batches of all ranks; in place. torch offers that on CUDA alone."""
    nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]


class SharedLoss:
    """A module's loss on a rank's part of a batch, whose gradients become those of all parts together.

    They are averaged over ranks, so that a part's loss is to be weighted by its share of the batch times the number of ranks.
    To be made when the parameters that train are known.
    """

    def __init__(self, module: nn.Module, ranks: Ranks) -> None:
        self._module, self._ranks = module, ranks
        self._of: Callable[[Batch], torch.Tensor] = module.loss  # type: ignore[assignment]
        self._copies: DistributedDataParallel | None = None
        self._alone: list[nn.Parameter] = []
        if ranks.are_several and is_sharded(module):
            self._alone = [each for each in module.parameters() if each.ndim == 0 and each.requires_grad]
        elif ranks.are_several:
            # a loss need not use every parameter, and not the same in each step
            self._copies = DistributedDataParallel(_Loss(module), find_unused_parameters=True)
            self._of = self._copies

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Return the loss, averaged over the faces of this rank's part."""
        return self._of(batch)

    @contextmanager
    def adding(self, is_last: bool) -> Iterator[None]:
        """Run forward and backward of one batch of a step; gradients are averaged over ranks once, in the last one."""
        if isinstance(self._module, FSDPModule):
            self._module.set_requires_gradient_sync(is_last)
            yield
            for parameter in self._alone if is_last else ():
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                dist.all_reduce(parameter.grad)
                parameter.grad /= self._ranks.world_size
        elif self._copies is not None and not is_last:
            with self._copies.no_sync():
                yield
        else:
            yield


class _Loss(nn.Module):
    """Gives DDP, which watches a forward, the loss that models are trained through."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        # DDP, told to look for unused parameters, warns on every rank where it finds none
        self.unused = nn.Parameter(torch.zeros(1, device=next(module.parameters()).device))

    def forward(self, batch: Batch) -> torch.Tensor:
        loss: torch.Tensor = self.module.loss(batch)  # type: ignore[operator]
        return loss


# --- state ---------------------------------------------------------------------------------------------------------


def whole(tensors: Tensors, ranks: Ranks) -> dict[str, torch.Tensor]:
    """Return on the first rank the tensors with all shares in them, and none on the others; every rank takes part."""
    found = {}
    for name, tensor in tensors.items():
        full = tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor
        if ranks.is_first:
            found[name] = full
    return found


def whole_optimizer(optimizer: Optimizer, ranks: Ranks) -> dict[int, dict[str, torch.Tensor]]:
    """Return on the first rank what an optimiser keeps of each parameter, by its index, as ``whole`` does."""
    states = {index: whole(state, ranks) for index, state in optimizer.state_dict()["state"].items()}
    return states if ranks.is_first else {}


def fill(module: nn.Module, state: Tensors, ranks: Ranks) -> None:
    """Overwrite a module's state on all ranks with a whole one that the first rank has."""
    if not ranks.are_several:
        module.load_state_dict(dict(state))
        return
    with torch.no_grad():
        for name, own in module.state_dict().items():
            full = _from_first(state.get(name), own.shape, own.dtype, ranks)
            own.copy_(_share_of(full, own))


def copy_first(module: nn.Module, ranks: Ranks) -> None:
    """Overwrite a module's state on all ranks with the first one's."""
    if ranks.are_several:
        fill(module, module.state_dict(), ranks)


def fill_optimizer(optimizer: Optimizer, states: Mapping[int, Tensors], ranks: Ranks) -> None:
    """Overwrite what an optimiser keeps of each parameter, as ``fill`` does."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kept = {index: {name: (each.shape, each.dtype) for name, each in of.items()} for index, of in states.items()}
    filled: dict[int, dict[str, torch.Tensor]] = {}
    for index, of in ranks.first_says(lambda: kept).items():
        filled[index] = {}
        for name, (shape, dtype) in of.items():
            full = _from_first(states.get(index, {}).get(name), shape, dtype, ranks)
            is_like_it = shape == parameters[index].shape
            filled[index][name] = _share_of(full, parameters[index]) if is_like_it else full
    optimizer.load_state_dict({"state": filled, "param_groups": optimizer.state_dict()["param_groups"]})


def _from_first(tensor: torch.Tensor | None, shape: torch.Size, dtype: torch.dtype, ranks: Ranks) -> torch.Tensor:
    if not ranks.are_several:
        assert tensor is not None, "the one rank is the first"
        return tensor
    full = torch.empty(shape, dtype=dtype) if tensor is None else tensor.detach().cpu().contiguous()
    ranks.copy_from_first(full)
    return full


def _share_of(full: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Return of a tensor that every rank has what it holds of a parameter or buffer like ``own``."""
    if not isinstance(own, DTensor):
        return full
    on_device = full.to(own.device_mesh.device_type)
    return distribute_tensor(on_device, own.device_mesh, own.placements, src_data_rank=None)
