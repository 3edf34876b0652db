"""Contrastive losses over the global batch, as pure functions of embeddings; the exchange between ranks is an argument.

DDP takes the mean of the gradients over ranks. Of every loss this mean is the gradient of one process that holds the whole
batch. Ranks may hold unequal shares of it. Shapes: B = pairs of this rank, N = pairs of all, D = embedding size.
"""

from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as nnf

Kind = Literal["global", "local", "sigmoid"]
IGNORED = -100  # torch's default


class Pairs(NamedTuple):
    """Embeddings that a loss compares; row i of the audio belongs to row i of the text."""

    audio: Tensor  # (B, D) unit vectors
    text: Tensor  # (B, D) unit vectors
    clip: Tensor  # (B,) int64: rows with the same number are the same clip
    caption: Tensor  # (B,) int64: rows with the same number have the same caption
    valid: Tensor  # (B,) bool: False for a row that does not count


class HardNegatives(NamedTuple):
    """Wrong texts, each compared with its own clip only."""

    text: Tensor  # (B, D) unit vectors
    made: Tensor  # (B,) bool: False for a clip without one


class Exchange(Protocol):
    """Exchange of rows between ranks."""

    world_size: int

    def gather(self, tensor: Tensor) -> Tensor:
        """Concatenate (B, ...) over ranks, in rank order, to (N, ...), with gradient."""
        ...

    def first_row(self) -> int:
        """Return the index of the first row of this rank among the gathered rows."""
        ...

    def pad(self, tensor: Tensor) -> Tensor:
        """Pad (B, ...) with rows of zeros to the longest share of a rank."""
        ...

    def shift(self, tensor: Tensor) -> Tensor:
        """Send a tensor, of one shape on all ranks, to the next rank and return that of the rank before, with gradient."""
        ...


def loss(
    kind: Kind,
    pairs: Pairs,
    scale: Tensor,
    bias: Tensor | None,
    ranks: Exchange,
    mask: bool,
    negatives: HardNegatives | None = None,
) -> Tensor:
    """Return the loss of this rank, float32.

    Args:
        kind: `global` is symmetric InfoNCE (Radford et al. 2021, fig. 3; BLAT uses the same), every rank computing all N x N
            logits; `local` the same with this rank's B x N and N x B only; `sigmoid` that of SigLIP (Zhai et al. 2023,
            arXiv 2303.15343), where texts travel from rank to rank.
        pairs: of this rank.
        scale: exp of the logit scale, a scalar.
        bias: added to the logits of `sigmoid`, a scalar.
        ranks: see `Exchange`.
        mask: leave out pairs that are not true negatives: those of the same clip, or with the same caption.
        negatives: one more text for each clip, which is wrong, as in CompA (Ghosh et al. 2024, arXiv 2310.08753): a column
            more for the softmax over texts, a term more for `sigmoid`.
    """
    with torch.autocast(pairs.audio.device.type, enabled=False):
        if kind == "sigmoid":
            assert bias is not None
            total = _sigmoid(pairs, scale, bias, ranks, mask)
            return total if negatives is None else total + _sigmoid_negatives(pairs, negatives, scale, bias, ranks)
        column = None if negatives is None else _column(pairs, negatives, scale)
        return (_global if kind == "global" else _local)(pairs, scale, ranks, mask, column)


def _column(pairs: Pairs, negatives: HardNegatives, scale: Tensor) -> Tensor:
    """Return the logits (B, 1) of the hard negatives, -inf where there is none."""
    logits = scale * (pairs.audio * negatives.text).sum(dim=1)
    return logits.masked_fill(~negatives.made, -torch.inf)[:, None]


def _global(pairs: Pairs, scale: Tensor, ranks: Exchange, mask: bool, column: Tensor | None) -> Tensor:
    gathered = Pairs(*(ranks.gather(each) for each in pairs))
    logits = scale * gathered.audio @ gathered.text.T  # (N, N)
    match = torch.arange(len(logits), device=logits.device)
    hidden = _not_compared(gathered, gathered, match, mask)
    hidden = hidden | hidden.T  # texts have no match among clips that do not count, either
    logits = logits.masked_fill(hidden, -torch.inf)
    target = _targets(match, gathered.valid)
    texts = logits if column is None else torch.cat([logits, ranks.gather(column)], dim=1)  # (N, N + 1)
    return (nnf.cross_entropy(texts, target) + nnf.cross_entropy(logits.T, target)) / 2


def _local(pairs: Pairs, scale: Tensor, ranks: Exchange, mask: bool, column: Tensor | None) -> Tensor:
    gathered = Pairs(*(ranks.gather(each) for each in pairs))
    match = ranks.first_row() + torch.arange(len(pairs.audio), device=scale.device)
    hidden = _not_compared(pairs, gathered, match, mask)  # (B, N)
    total = torch.zeros((), device=scale.device)
    for rows, columns, more in ((pairs.audio, gathered.text, column), (pairs.text, gathered.audio, None)):
        logits = (scale * rows @ columns.T).masked_fill(hidden, -torch.inf)
        logits = logits if more is None else torch.cat([logits, more], dim=1)
        total = total + nnf.cross_entropy(logits, _targets(match, pairs.valid), reduction="sum") / 2
    return total * ranks.world_size / gathered.valid.sum()


def _sigmoid(pairs: Pairs, scale: Tensor, bias: Tensor, ranks: Exchange, mask: bool) -> Tensor:
    count = ranks.gather(pairs.valid).sum()
    received = Pairs(*(ranks.pad(each) for each in pairs))
    diagonal = torch.arange(len(pairs.audio), device=scale.device)
    no_match = torch.full_like(diagonal, -1)
    total = torch.zeros((), device=scale.device)
    for hop in range(ranks.world_size):
        match = diagonal if hop == 0 else no_match
        hidden = _not_compared(pairs, received, match, mask)
        logits = scale * pairs.audio @ received.text.T + bias  # (B, longest share of a rank)
        matches = torch.arange(logits.shape[1], device=scale.device)[None, :] == match[:, None]
        terms = nnf.logsigmoid(torch.where(matches, logits, -logits)).masked_fill(hidden, 0.0)
        total = total - terms.masked_fill(~pairs.valid[:, None], 0.0).sum()
        if hop < ranks.world_size - 1:
            received = Pairs(received.audio, *(ranks.shift(each) for each in received[1:]))
    return total * ranks.world_size / count


def _sigmoid_negatives(pairs: Pairs, negatives: HardNegatives, scale: Tensor, bias: Tensor, ranks: Exchange) -> Tensor:
    logits = scale * (pairs.audio * negatives.text).sum(dim=1) + bias  # (B,)
    terms = nnf.logsigmoid(-logits).masked_fill(~(negatives.made & pairs.valid), 0.0)
    return -terms.sum() * ranks.world_size / ranks.gather(pairs.valid).sum()


def _targets(match: Tensor, valid: Tensor) -> Tensor:
    """Return the column of each row's match, or what cross-entropy ignores where the row is not valid.

    Leaving such rows out by a boolean index would make the host wait for the GPU.
    """
    return match.masked_fill(~valid, IGNORED)


def _not_compared(rows: Pairs, columns: Pairs, match: Tensor, mask: bool) -> Tensor:
    """Return (rows, columns) bool: True where nothing is compared; `match` is the column of each row's match, or -1."""
    hidden = ~columns.valid[None, :].expand(len(rows.valid), -1)
    if mask:
        hidden = hidden | (rows.clip[:, None] == columns.clip) | (rows.caption[:, None] == columns.caption)
    column = torch.arange(len(columns.valid), device=match.device)
    return hidden & (column[None, :] != match[:, None])
