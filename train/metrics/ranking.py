"""Ranks of the best relevant item of a query, hits among the k best, and average precision at k.

Shapes: Q = queries, G = gallery items, D = embedding size; N = clips, C = classes. Larger similarity is closer. Tied items
are in random order: ranks and hits are their expected values.

Similarities of `retrieve` are float64: rounding errors of their sums stay far below `TIE`, and TF32 is not used. The noise
of the float32 vectors remains. A unit vector of our towers moves by at most 3 eps (3.5e-7, measured at D = 512 and 1,024)
when its batch changes, and a cosine moves by no more than its two vectors. This bound does not grow with D, because the
vectors have length 1.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

TIE = 16 * float(np.finfo(np.float32).eps)  # 1.9e-6: twice the noise of two vectors, and a margin; closer ones tie
QUERIES = 1_024  # compared with all items at a time


class BestItem(NamedTuple):
    """Position of the best relevant item of each query; (Q,) each."""

    above: np.ndarray  # other items that are closer
    tied: np.ndarray  # other items that are equally close
    relevant: np.ndarray  # relevant items that are equally close, the best one included

    @property
    def ranks(self) -> np.ndarray:
        """The expected ranks (Q,), from 1: a tied item is above all r relevant ones in 1/(r + 1) of the orders."""
        return self.above + self.tied / (self.relevant + 1) + 1

    def within(self, k: int) -> np.ndarray:
        """Return the probability (Q,) that the item is among the first k."""
        free = k - self.above  # positions for the tied and the relevant items
        missed = np.ones(len(free))
        for position in range(k):
            others = np.maximum(self.tied - position, 0) / np.maximum(self.tied + self.relevant - position, 1)
            missed *= np.where(position < free, others, 1)
        return 1 - missed


def rank_best(similarity: np.ndarray | Tensor, relevant: np.ndarray | Tensor) -> BestItem:
    """Return the position of the best relevant item of each query.

    Args:
        similarity: (Q, G).
        relevant: (Q, G) bool, at least one True in each row.
    """
    similarity, relevant = torch.as_tensor(similarity), torch.as_tensor(relevant)
    gap = similarity - similarity.masked_fill(~relevant, -torch.inf).amax(dim=1, keepdim=True)
    tied = gap.abs() <= TIE
    counts = ((gap > TIE) & ~relevant, tied & ~relevant, tied & relevant)
    return BestItem(*(count.sum(dim=1).cpu().numpy() for count in counts))


def retrieve(queries: Tensor, items: Tensor, clip_of_query: Tensor, clip_of_item: Tensor) -> BestItem:
    """Return the position of the best item of the same clip for each query; every query has one.

    Args:
        queries: (Q, D) unit vectors.
        items: (G, D) unit vectors.
        clip_of_query: (Q,) int.
        clip_of_item: (G,) int.
    """
    gallery = items.double().T
    found = [
        rank_best(some.double() @ gallery, clips[:, None] == clip_of_item)
        for some, clips in zip(queries.split(QUERIES), clip_of_query.split(QUERIES), strict=True)
    ]
    return BestItem(*(np.concatenate(each) for each in zip(*found, strict=True)))


def query_average_precision(similarity: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """Return (Q,) average precision at k, of (Q, G) each: divided by min(relevant items, k).

    It is the expected one when tied items are in random order. Of the `size` items that tie at a position, `hits` are
    relevant: the item at this position is relevant in hits/size of the orders, and then each tied item above it in
    (hits - 1)/(size - 1) of them.
    """
    found = np.zeros(len(similarity))
    falling = -np.sort(-similarity, axis=1)[:, :k]
    for position in range(falling.shape[1]):
        gap = similarity - falling[:, position, None]
        above, tied = gap > TIE, np.abs(gap) <= TIE
        size, hits = tied.sum(axis=1), (tied & relevant).sum(axis=1)
        between = (position - above.sum(axis=1)) * (hits - 1) / np.maximum(size - 1, 1)
        found += hits / size * (1 + (above & relevant).sum(axis=1) + between) / (position + 1)
    return np.asarray(found / np.minimum(relevant.sum(axis=1), k))


def top_k(similarity: np.ndarray, target: np.ndarray, k: int) -> np.ndarray:
    """Return (N,) 1.0 where the true class is among the k best of (N, C); the target loses ties."""
    others = (similarity >= similarity[np.arange(len(target)), target][:, None]).sum(axis=1) - 1  # at least as close
    return (others < k).astype(float)
