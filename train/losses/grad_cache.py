"""A batch in chunks that fit into memory, with the gradient of the whole batch: every pair is compared with all others.

First all chunks are embedded without a graph. The loss of all embeddings gives the gradient of each embedding. Then each
chunk is embedded again, with a graph, and passes its gradient on to the parameters. Source: GradCache, Gao et al. 2021,
arXiv 2101.06983; open_clip's `accum_freq`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from train import parallel
from train.models.clap import Towers

Loss = Callable[[Towers], Tensor]


def backward(
    model: nn.Module, chunks: Sequence[tuple[Tensor, ...]], loss: Loss, seed: int, **arguments: object
) -> Tensor:
    """Add the gradient of the loss over all chunks to the parameters; return the loss.

    Args:
        model: two towers; a chunk -> `Towers`.
        chunks: inputs of the model, the same number of chunks on every rank.
        loss: of the embeddings of all chunks.
        seed: of dropout; a chunk draws the same numbers both times.
        arguments: passed to the model with every chunk.
    """
    if len(chunks) == 1:
        torch.manual_seed(seed)
        value = loss(model(*chunks[0], **arguments))
        value.backward()
        return value.detach()
    cached = _embed(model, chunks, seed, arguments)
    value = loss(cached)
    value.backward()
    end = 0
    for i, chunk in enumerate(chunks):
        rows = slice(end, end := end + len(chunk[0]))
        with parallel.accumulating(model, more_to_come=i < len(chunks) - 1):
            torch.manual_seed(seed + i)
            towers = model(*chunk, **arguments)
            audio, text = towers.audio * _gradient(cached.audio)[rows], towers.text * _gradient(cached.text)[rows]
            surrogate = audio.sum() + text.sum()  # its gradient is that of the loss
            for now, before in ((towers.scale, cached.scale), (towers.bias, cached.bias)):
                surrogate = surrogate + now * _gradient(before) / len(chunks)
            surrogate.backward()
    return value.detach()


def _embed(
    model: nn.Module, chunks: Sequence[tuple[Tensor, ...]], seed: int, arguments: Mapping[str, object]
) -> Towers:
    """Return the embeddings of all chunks as leaves of a new graph."""
    embedded = []
    with torch.no_grad(), frozen_statistics(model):
        for i, chunk in enumerate(chunks):
            torch.manual_seed(seed + i)
            embedded.append(parallel.unwrap(model)(*chunk, **arguments))
    audio, text = (torch.cat([getattr(each, name) for each in embedded]) for name in ("audio", "text"))
    audio, text, scale, bias = (
        each.detach().requires_grad_() for each in (audio, text, embedded[0].scale, embedded[0].bias)
    )
    return Towers(audio, text, scale, bias)


def _gradient(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Keep the running statistics of BatchNorm as they are during a pass that is one of two over the same batch."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    counts = [None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and count is not None:
                norm.num_batches_tracked.copy_(count)
