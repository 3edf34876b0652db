"""Contrastive losses over the global batch, as pure functions of embeddings; how ranks exchange them is an argument.

Every loss is built so that the mean over ranks that DDP takes of gradients is the gradient of one process that holds the
whole batch. Ranks may hold unequal parts of it. Shapes: B = pairs of this rank, N = pairs of all, D = embedding size.
"""

from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as nnf

Kind = Literal["global", "local", "sigmoid"]


class Pairs(NamedTuple):
    """What a loss compares; row i of the audio belongs to row i of the text."""

    audio: Tensor  # (B, D) unit vectors
    text: Tensor  # (B, D) unit vectors
    clip: Tensor  # (B,) int64: rows with the same number are the same clip
    caption: Tensor  # (B,) int64: rows with the same number have the same caption
    valid: Tensor  # (B,) bool: False for a row that does not count


class Exchange(Protocol):
    """The ranks as a loss sees them."""

    world_size: int

    def gather(self, tensor: Tensor) -> Tensor:
        """Concatenate (B, ...) over ranks, in rank order, to (N, ...), with gradient."""
        ...

    def first(self) -> int:
        """Return where the rows of this rank begin in what is gathered."""
        ...

    def pad(self, tensor: Tensor) -> Tensor:
        """Lengthen (B, ...) with zeros to the rows of the rank that has most."""
        ...

    def shift(self, tensor: Tensor) -> Tensor:
        """Give a tensor of equal shape everywhere to the next rank and return that of the rank before, with gradient."""
        ...


def loss(kind: Kind, pairs: Pairs, scale: Tensor, bias: Tensor | None, ranks: Exchange, mask: bool) -> Tensor:
    """Return the loss of this rank, float32.

    Args:
        kind: `global` is symmetric InfoNCE (Radford et al. 2021, fig. 3; BLAT uses the same), every rank computing all N x N
            logits; `local` the same with this rank's B x N and N x B only; `sigmoid` that of SigLIP (Zhai et al. 2023,
            arXiv 2303.15343), texts going round the ranks.
        pairs: of this rank.
        scale: exp of the logit scale, a scalar.
        bias: added to the logits of `sigmoid`, a scalar.
        ranks: see `Exchange`.
        mask: leave out pairs that are no true negatives: those of the same clip, or with the same caption.
    """
    with torch.autocast(pairs.audio.device.type, enabled=False):
        if kind == "sigmoid":
            assert bias is not None
            return _sigmoid(pairs, scale, bias, ranks, mask)
        return (_global if kind == "global" else _local)(pairs, scale, ranks, mask)


def _global(pairs: Pairs, scale: Tensor, ranks: Exchange, mask: bool) -> Tensor:
    everyone = Pairs(*(ranks.gather(each) for each in pairs))
    everyone = Pairs(*(each[everyone.valid] for each in everyone))
    logits = scale * everyone.audio @ everyone.text.T  # (N, N)
    target = torch.arange(len(logits), device=logits.device)
    logits = logits.masked_fill(_not_compared(everyone, everyone, target, mask), -torch.inf)
    return (nnf.cross_entropy(logits, target) + nnf.cross_entropy(logits.T, target)) / 2


def _local(pairs: Pairs, scale: Tensor, ranks: Exchange, mask: bool) -> Tensor:
    everyone = Pairs(*(ranks.gather(each) for each in pairs))
    own = ranks.first() + torch.arange(len(pairs.audio), device=scale.device)
    hidden = _not_compared(pairs, everyone, own, mask)  # (B, N)
    total = torch.zeros((), device=scale.device)
    for rows, columns in ((pairs.audio, everyone.text), (pairs.text, everyone.audio)):
        logits = (scale * rows @ columns.T).masked_fill(hidden, -torch.inf)[pairs.valid]
        total = total + nnf.cross_entropy(logits, own[pairs.valid], reduction="sum") / 2
    return total * ranks.world_size / everyone.valid.sum()


def _sigmoid(pairs: Pairs, scale: Tensor, bias: Tensor, ranks: Exchange, mask: bool) -> Tensor:
    count = ranks.gather(pairs.valid).sum()
    visiting = Pairs(*(ranks.pad(each) for each in pairs))
    own = torch.arange(len(pairs.audio), device=scale.device)
    nobody = torch.full_like(own, -1)
    total = torch.zeros((), device=scale.device)
    for turn in range(ranks.world_size):
        mine = own if turn == 0 else nobody
        hidden = _not_compared(pairs, visiting, mine, mask)
        logits = scale * pairs.audio @ visiting.text.T + bias  # (B, most rows of a rank)
        matches = torch.arange(logits.shape[1], device=scale.device)[None, :] == mine[:, None]
        terms = nnf.logsigmoid(torch.where(matches, logits, -logits)).masked_fill(hidden, 0.0)
        total = total - terms[pairs.valid].sum()
        if turn < ranks.world_size - 1:
            visiting = Pairs(visiting.audio, *(ranks.shift(each) for each in visiting[1:]))
    return total * ranks.world_size / count


def _not_compared(rows: Pairs, columns: Pairs, own: Tensor, mask: bool) -> Tensor:
    """Return (rows, columns) bool: True where there is nothing to compare; `own` is the column of each row's match or -1."""
    hidden = ~columns.valid[None, :].expand(len(rows.valid), -1)
    if mask:
        hidden = hidden | (rows.clip[:, None] == columns.clip) | (rows.caption[:, None] == columns.caption)
    places = torch.arange(len(columns.valid), device=own.device)
    return hidden & (places[None, :] != own[:, None])
