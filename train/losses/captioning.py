"""Losses of the captioner as pure functions of tensors; the average over ranks is an argument.

Shapes: B = clips, L = tokens, V = words, K = tags.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as nnf

# A count on this rank -> its mean over ranks, which may hold unequal shares of a batch.
Mean = Callable[[Tensor], Tensor]


def one_rank(count: Tensor) -> Tensor:
    """Return the mean over ranks where there is one."""
    return count


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
    evenly = smoothing * vocabulary / (vocabulary - 1)  # torch spreads over all words, also over the true one
    total = nnf.cross_entropy(
        logits.flatten(0, 1).float(), words.flatten(), ignore_index=pad, label_smoothing=evenly, reduction="sum"
    )
    return total / mean((words != pad).sum().float()).clamp(min=1e-6)


def tagging(logits: Tensor, tags: Tensor, tagged: Tensor, mean: Mean = one_rank) -> Tensor:
    """Binary cross-entropy of multi-label tagging, over the clips that have tags.

    Args:
        logits: (B, K).
        tags: (B, K) multi-hot.
        tagged: indices of the clips that have tags. To find them on a GPU would make the host wait for it.
        mean: see `Mean`.
    """
    total = nnf.binary_cross_entropy_with_logits(logits[tagged].float(), tags[tagged], reduction="sum")
    return total / (mean(tags.any(dim=1).sum().float()) * logits.shape[1]).clamp(min=1e-6)
