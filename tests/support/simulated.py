"""A CUDA device that holds shapes, layouts and types but no values: what a module does there, seen without a GPU.

An operation on tensors of two devices raises an error, and so does reading a value, as `Tensor.item` does.
"""

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

__all__ = ["FakeTensorMode", "move_to_cuda"]


def move_to_cuda(module: nn.Module) -> None:
    """Give a module weights and buffers on the simulated device, laid out as they were; call it in a `FakeTensorMode`."""
    for part in module.modules():
        for name, value in [*part._parameters.items()]:
            if value is not None:
                held = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cuda")
                part._parameters[name] = nn.Parameter(held, requires_grad=False)
        for name, buffer in [*part._buffers.items()]:
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda")
