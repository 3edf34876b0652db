"""A batch in parts that fit the memory, with the gradient of the whole: every pair still meets every other.

First all parts are embedded without a graph; the loss of all embeddings gives each its gradient; then each part is embedded
again, with a graph, and takes its share on. Source: Gao et al. 2021, arXiv 2101.06983 (GradCache); open_clip's `accum_freq`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from train import parallel
from train.models.clap import Towers

Loss = Callable[[Towers], Tensor]


def backward(model: nn.Module, parts: Sequence[tuple[Tensor, ...]], loss: Loss, seed: int, **named: object) -> Tensor:
    """Add the gradient of the loss over all parts to the parameters; return the loss.

    Args:
        model: two towers; a part -> `Towers`.
        parts: inputs of the model, the same number of parts on every rank.
        loss: of the embeddings of all parts.
        seed: of dropout; a part draws the same numbers both times.
        named: goes to the model with every part.
    """
    if len(parts) == 1:
        torch.manual_seed(seed)
        value = loss(model(*parts[0], **named))
        value.backward()
        return value.detach()
    cached = _embed(model, parts, seed, named)
    value = loss(cached)
    value.backward()
    end = 0
    for i, part in enumerate(parts):
        rows = slice(end, end := end + len(part[0]))
        with parallel.accumulating(model, more_to_come=i < len(parts) - 1):
            torch.manual_seed(seed + i)
            made = model(*part, **named)
            pulled = (made.audio * _gradient(cached.audio)[rows]).sum() + (
                made.text * _gradient(cached.text)[rows]
            ).sum()
            for now, before in ((made.scale, cached.scale), (made.bias, cached.bias)):
                pulled = pulled + now * _gradient(before) / len(parts)
            pulled.backward()
    return value.detach()


def _embed(model: nn.Module, parts: Sequence[tuple[Tensor, ...]], seed: int, named: Mapping[str, object]) -> Towers:
    """Return the embeddings of all parts as leaves of a new graph."""
    made = []
    with torch.no_grad(), unmoved_statistics(model):
        for i, part in enumerate(parts):
            torch.manual_seed(seed + i)
            made.append(parallel.unwrap(model)(*part, **named))
    whole = Towers(
        torch.cat([each.audio for each in made]), torch.cat([each.text for each in made]), made[0].scale, made[0].bias
    )
    return Towers(*(each.detach().requires_grad_() for each in whole))


def _gradient(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


@contextmanager
def unmoved_statistics(model: nn.Module) -> Iterator[None]:
    """Keep the running statistics of BatchNorm as they are while a batch passes more than once."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    held = [norm.momentum for norm in norms]
    counts = [None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, held, counts, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and count is not None:
                norm.num_batches_tracked.copy_(count)
