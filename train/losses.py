"""Losses as pure functions of tensors; how to gather over ranks is an argument.

Shapes: B = local pairs, N = global pairs, D = embedding size, L = tokens, V = words, K = tags.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as nnf

Gather = Callable[[Tensor], Tensor]  # (B, D) of this rank -> (N, D) of all ranks, differentiable
Mean = Callable[
    [Tensor], Tensor
]  # a count on this rank -> its mean over ranks: ranks may hold unequal parts of a batch


def one_rank(count: Tensor) -> Tensor:
    """Return the mean over ranks where there is one."""
    return count


def contrastive(audio: Tensor, text: Tensor, scale: Tensor, gather: Gather) -> Tensor:
    """Symmetric InfoNCE over the global batch (Radford et al. 2021, eq. in fig. 3; BLAT uses the same).

    Every rank computes the whole loss from gathered embeddings. With a gather that passes gradients back, the mean over
    ranks that DDP takes is the gradient of one process holding the global batch.

    Args:
        audio: unit vectors (B, D); row i belongs to row i of `text`.
        text: unit vectors (B, D).
        scale: exp of the logit scale, a scalar.
        gather: see `Gather`.
    """
    logits = scale * gather(audio) @ gather(text).T  # (N, N)
    target = torch.arange(len(logits), device=logits.device)
    return (nnf.cross_entropy(logits, target) + nnf.cross_entropy(logits.T, target)) / 2


def caption(logits: Tensor, words: Tensor, pad: int, smoothing: float, mean: Mean = one_rank) -> Tensor:
    """Label-smoothed cross-entropy of next words; mean over the global batch's non-pad words, the end token included.

    Args:
        logits: (B, L, V).
        words: (B, L) the words to predict.
        pad: id to leave out.
        smoothing: probability spread evenly over all other words.
        mean: see `Mean`.
    """
    vocabulary = logits.shape[-1]
    evenly = smoothing * vocabulary / (vocabulary - 1)  # torch spreads over all words, the true one too
    total = nnf.cross_entropy(
        logits.flatten(0, 1), words.flatten(), ignore_index=pad, label_smoothing=evenly, reduction="sum"
    )
    return total / mean((words != pad).sum().float())


def tagging(logits: Tensor, tags: Tensor, mean: Mean = one_rank) -> Tensor:
    """Binary cross-entropy of multi-label tagging; logits and multi-hot tags (B, K), clips without tags left out."""
    tagged = tags.any(dim=1)
    total = nnf.binary_cross_entropy_with_logits(logits[tagged], tags[tagged], reduction="sum")
    return total / (mean(tagged.sum().float()) * logits.shape[1]).clamp(min=1e-6)
