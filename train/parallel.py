"""One model on several ranks: averages of gradients, and the exchange of embeddings with their gradients."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.autograd import Function
from torch.distributed.nn.functional import all_gather
from torch.nn import functional as nnf
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

Value = TypeVar("Value")


def average_gradients(model: nn.Module, device: torch.device) -> nn.Module:
    """Wrap a model that is whole on every rank, so that a backward pass averages gradients over the ranks."""
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def average_each(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of these parameters over the ranks as soon as they are there, in every chunk of a step."""

    def average(parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.grad.copy_(mean(parameter.grad))

    for parameter in parameters:
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(average)


def as_sharded(tensor: Tensor) -> "DTensor | None":
    """Return a tensor that ranks hold in pieces as what it is, or None for any other."""
    module = sys.modules.get("torch.distributed.tensor")  # its import takes two seconds; nothing is sharded before it
    return tensor if module is not None and isinstance(tensor, module.DTensor) else None


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside the wrapper: its state has the same names on any number of workers."""
    return model.module if isinstance(model, DistributedDataParallel) else model


@contextmanager
def accumulating(model: nn.Module, more_to_come: bool) -> Iterator[None]:
    """Keep gradients on this rank while more chunks of the step follow; the last chunk averages them."""
    synchronize = getattr(model, "set_requires_gradient_sync", None)  # FSDP's, whose import takes two seconds
    if synchronize is not None:
        synchronize(not more_to_come)
        yield
    elif isinstance(model, DistributedDataParallel) and more_to_come:
        with model.no_sync():
            yield
    else:
        yield


class Ranks:
    """Exchange of the rows of a global batch of `total`, of which rank r of n holds every n-th."""

    def __init__(self, total: int) -> None:
        self.world_size, self.rank = (distributed.get_world_size(), distributed.get_rank()) if _several() else (1, 0)
        self.counts = [len(range(rank, total, self.world_size)) for rank in range(self.world_size)]

    def first_row(self) -> int:
        """Return the index of the first row of this rank among the gathered rows."""
        return sum(self.counts[: self.rank])

    def gather(self, tensor: Tensor) -> Tensor:
        """Concatenate rows (B, ...) over all ranks, in rank order, to (N, ...); gradients go back to each rank."""
        if self.world_size == 1:
            return tensor
        if not tensor.is_floating_point():
            shares = [torch.empty_like(self.pad(tensor)) for _ in self.counts]
            distributed.all_gather(shares, self.pad(tensor))
        else:
            shares = list(all_gather(self.pad(tensor)))
        return torch.cat([share[:count] for share, count in zip(shares, self.counts, strict=True)])

    def pad(self, tensor: Tensor) -> Tensor:
        """Pad (B, ...) with rows of zeros to the longest share of a rank."""
        missing = max(self.counts) - len(tensor)
        if not missing:
            return tensor.contiguous()
        return nnf.pad(tensor, (*(0, 0) * (tensor.dim() - 1), 0, missing))

    def shift(self, tensor: Tensor) -> Tensor:
        """Send a tensor to the next rank and return that of the rank before; gradients go the other way."""
        shifted: Tensor = _Shift.apply(tensor, 1)
        return shifted


class _Shift(Function):
    @staticmethod
    def forward(context: Any, tensor: Tensor, by: int) -> Tensor:
        context.by = by
        rank, size = distributed.get_rank(), distributed.get_world_size()
        sent, received = tensor.contiguous(), torch.empty_like(tensor)
        if tensor.dtype == torch.bool:  # not every backend can send bool
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
    """Return the value of rank 0 on every rank."""
    if not _several():
        return value
    shared = torch.tensor(value, device=device)
    distributed.broadcast(shared, src=0)
    return int(shared)


def share_buffers(network: nn.Module) -> None:
    """Give every rank the buffers of rank 0, as a training step of DDP does at its start: those that are saved."""
    if not _several():
        return
    for buffer in network.buffers():
        shared = buffer.contiguous()
        distributed.broadcast(shared, src=0)
        buffer.copy_(shared)


def agree(value: int) -> bool:
    """Return whether every rank has the same value."""
    return len(set(gather_objects(value))) == 1


def gather_objects(value: Value) -> list[Value]:
    """Return the values of all ranks, in rank order."""
    if not _several():
        return [value]
    values: list[Value] = [value] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def _several() -> bool:
    return distributed.is_initialized() and distributed.get_world_size() > 1
