"""Where the best relevant item of a query stands among all items: the ranks of retrieval, in training and in evaluation.

Shapes: Q = queries, G = gallery items, D = embedding size. Larger similarity is closer. Items that tie are in random
order, so that ranks and hits are the expected ones.

Similarities are float64: their order of summation then changes nothing that `TIE` could notice, and TF32 has no part in
them. What is left is the noise of the float32 vectors. A unit vector of our towers moves by at most 3 eps (3.5e-7, measured
at D = 512 and 1,024) when its batch changes; a cosine moves by no more than its two vectors do. This bound does not grow
with D, as the vectors keep length 1.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

TIE = 16 * float(
    np.finfo(np.float32).eps
)  # 1.9e-6; closer similarities tie: twice the noise of two vectors, and a rest
QUERIES = 1_024  # compared with all items at a time


class Best(NamedTuple):
    """Where the best relevant item of each query stands; (Q,) each."""

    above: np.ndarray  # other items that are closer
    tied: np.ndarray  # other items as close
    own: np.ndarray  # relevant items as close, itself among them

    @property
    def ranks(self) -> np.ndarray:
        """Return the expected ranks (Q,), from 1: each of the others comes before all of `own` once in `own` + 1 times."""
        return self.above + self.tied / (self.own + 1) + 1

    def within(self, k: int) -> np.ndarray:
        """Return the probability (Q,) that it is among the first k: that not all places left there go to the others."""
        places = k - self.above
        missed = np.ones(len(places))
        for place in range(k):
            left = np.maximum(self.tied - place, 0) / np.maximum(self.tied + self.own - place, 1)
            missed *= np.where(place < places, left, 1)
        return 1 - missed


def best(similarity: np.ndarray | Tensor, relevant: np.ndarray | Tensor) -> Best:
    """Return where the best relevant item of each query stands.

    Args:
        similarity: (Q, G).
        relevant: (Q, G) bool, at least one True in each row.
    """
    similarity, relevant = torch.as_tensor(similarity), torch.as_tensor(relevant)
    gap = similarity - similarity.masked_fill(~relevant, -torch.inf).amax(dim=1, keepdim=True)
    tied = gap.abs() <= TIE
    counts = ((gap > TIE) & ~relevant, tied & ~relevant, tied & relevant)
    return Best(*(count.sum(dim=1).cpu().numpy() for count in counts))


def retrieve(queries: Tensor, items: Tensor, clip_of_query: Tensor, clip_of_item: Tensor) -> Best:
    """Return where the best item of its clip stands for each query; every query has one.

    Args:
        queries: (Q, D) unit vectors.
        items: (G, D) unit vectors.
        clip_of_query: (Q,) int.
        clip_of_item: (G,) int.
    """
    gallery = items.double().T
    found = [
        best(some.double() @ gallery, clips[:, None] == clip_of_item)
        for some, clips in zip(queries.split(QUERIES), clip_of_query.split(QUERIES), strict=True)
    ]
    return Best(*(np.concatenate(each) for each in zip(*found, strict=True)))
