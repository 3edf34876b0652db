"""Several processes, one model: gradients averaged by DDP, embeddings gathered with their gradient. No Ray here."""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_gather
from torch.nn.parallel import DistributedDataParallel


def wrap(model: nn.Module, device: torch.device, world_size: int) -> nn.Module:
    """Move a model to the worker's device, and average gradients over the workers when there are several."""
    model = model.to(device)
    if world_size == 1:
        return model
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network under the wrapper: its state has the same names on any number of workers."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def gather(tensor: Tensor) -> Tensor:
    """Concatenate rows (B, D) over all ranks, in rank order, passing gradients back to each; (N, D)."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return tensor
    return torch.cat(list(all_gather(tensor)))


def mean(tensor: Tensor) -> Tensor:
    """Return the mean of a tensor over the ranks; no gradient goes through it."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return tensor
    total = tensor.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


def agree(value: int) -> bool:
    """Tell whether every rank holds the same number."""
    return len(set(gather_objects(value))) == 1


def gather_objects(value: Any) -> list[Any]:
    """Return what every rank holds, in rank order."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return [value]
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return found
