"""Several processes, one model: gradients averaged, embeddings exchanged with their gradient. No Ray here."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd import Function
from torch.distributed.fsdp import FSDPModule
from torch.distributed.nn.functional import all_gather
from torch.nn import functional as nnf
from torch.nn.parallel import DistributedDataParallel


def average_gradients(model: nn.Module, device: torch.device) -> nn.Module:
    """Wrap a model that is whole on every rank, so that a backward pass averages gradients over the ranks."""
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def average_each(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of these parameters over the ranks as they come; in parts of a step too."""

    def average(parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.grad.copy_(mean(parameter.grad))

    for parameter in parameters:
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(average)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network under the wrapper: its state has the same names on any number of workers."""
    return model.module if isinstance(model, DistributedDataParallel) else model


@contextmanager
def accumulating(model: nn.Module, more_to_come: bool) -> Iterator[None]:
    """Keep gradients on this rank while more of the step is to come; the last part averages them."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(not more_to_come)
        yield
    elif isinstance(model, DistributedDataParallel) and more_to_come:
        with model.no_sync():
            yield
    else:
        yield


class Ranks:
    """How the losses exchange rows of a global batch of `total`, of which rank r of n holds every n-th."""

    def __init__(self, total: int) -> None:
        self.world_size, self.rank = (distributed.get_world_size(), distributed.get_rank()) if _several() else (1, 0)
        self.counts = [len(range(rank, total, self.world_size)) for rank in range(self.world_size)]

    def first(self) -> int:
        """Return where the rows of this rank begin in what is gathered."""
        return sum(self.counts[: self.rank])

    def gather(self, tensor: Tensor) -> Tensor:
        """Concatenate rows (B, ...) over all ranks, in rank order, passing gradients back to each; (N, ...)."""
        if self.world_size == 1:
            return tensor
        if not tensor.is_floating_point():
            parts = [torch.empty_like(self.pad(tensor)) for _ in self.counts]
            distributed.all_gather(parts, self.pad(tensor))
        else:
            parts = list(all_gather(self.pad(tensor)))
        return torch.cat([part[:count] for part, count in zip(parts, self.counts, strict=True)])

    def pad(self, tensor: Tensor) -> Tensor:
        """Lengthen (B, ...) with zeros to the rows of the rank that has most."""
        missing = max(self.counts) - len(tensor)
        if not missing:
            return tensor.contiguous()
        return nnf.pad(tensor, (*(0, 0) * (tensor.dim() - 1), 0, missing))

    def shift(self, tensor: Tensor) -> Tensor:
        """Give a tensor to the next rank and return that of the rank before; gradients go the other way round."""
        shifted: Tensor = _Shift.apply(tensor, 1)
        return shifted


class _Shift(Function):
    @staticmethod
    def forward(context: Any, tensor: Tensor, by: int) -> Tensor:
        context.by = by
        rank, size = distributed.get_rank(), distributed.get_world_size()
        sent, received = tensor.contiguous(), torch.empty_like(tensor)
        if tensor.dtype == torch.bool:  # not every backend sends them
            sent, received = sent.to(torch.uint8), received.to(torch.uint8)
        send = distributed.P2POp(distributed.isend, sent, (rank + by) % size)
        receive = distributed.P2POp(distributed.irecv, received, (rank - by) % size)
        for work in distributed.batch_isend_irecv([send, receive]):
            work.wait()
        return received.to(tensor.dtype)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        back: Tensor = _Shift.apply(gradients[0], -context.by)
        return back, None


def mean(tensor: Tensor) -> Tensor:
    """Return the mean of a tensor over the ranks; no gradient goes through it."""
    if not _several():
        return tensor
    total = tensor.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


def from_leader(value: int, device: torch.device) -> int:
    """Return the number that rank 0 holds."""
    if not _several():
        return value
    told = torch.tensor(value, device=device)
    distributed.broadcast(told, src=0)
    return int(told)


def agree(value: int) -> bool:
    """Tell whether every rank holds the same number."""
    return len(set(gather_objects(value))) == 1


def gather_objects(value: Any) -> list[Any]:
    """Return what every rank holds, in rank order."""
    if not _several():
        return [value]
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return found


def _several() -> bool:
    return distributed.is_initialized() and distributed.get_world_size() > 1
