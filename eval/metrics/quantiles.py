"""Exact quantiles of more values than can be sorted in memory.

Shapes: Q = quantiles, R = ranks, U = values of the upper 16 bits at which these ranks are.
"""

from collections.abc import Sequence

import numpy as np

HALF_BITS = 16
NUM_HALVES = 1 << HALF_BITS
SIGN = np.uint32(1 << 31)


def quantiles(parts: Sequence[np.ndarray], shares: np.ndarray) -> np.ndarray:
    """Return the quantiles (Q,) of the values of all arrays together, at shares (Q,) from 0 to 1, as np.quantile does.

    Values are taken as float32, whose bits sort like the values. Two passes count them, by their upper and by their lower
    16 bits, so that memory does not grow with their number.
    """
    upper = np.zeros(NUM_HALVES, np.int64)
    for part in parts:
        upper += np.bincount(_ordered(part) >> HALF_BITS, minlength=NUM_HALVES)
    rank = (upper.sum() - 1) * shares
    wanted, place = np.unique([np.floor(rank), np.ceil(rank)], return_inverse=True)
    below, above = _values(parts, upper, wanted)[place.reshape(2, -1)]
    return below + (above - below) * (rank - np.floor(rank))


def _values(parts: Sequence[np.ndarray], upper: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the values at ranks (R,), given how many values have each upper half."""
    before = np.concatenate([[0], np.cumsum(upper)])
    used, row = np.unique(np.searchsorted(before, wanted, side="right") - 1, return_inverse=True)
    lower = np.zeros((len(used), NUM_HALVES), np.int64)
    row_of = np.full(NUM_HALVES, -1)
    row_of[used] = np.arange(len(used))
    for part in parts:
        bits = _ordered(part)
        rows = row_of[bits >> HALF_BITS]
        np.add.at(lower, (rows[rows >= 0], bits[rows >= 0] & (NUM_HALVES - 1)), 1)
    within = (lower.cumsum(axis=1)[row] <= (wanted - before[used[row]])[:, None]).sum(axis=1)  # (R,) lower halves
    bits = (used[row] << HALF_BITS | within).astype(np.uint32)
    return np.where(bits & SIGN, bits ^ SIGN, ~bits).view(np.float32).astype(np.float64)


def _ordered(part: np.ndarray) -> np.ndarray:
    """Return the bits of float32 values as whole numbers of the same order."""
    bits = np.ascontiguousarray(part, np.float32).view(np.uint32).ravel()
    return np.where(bits & SIGN, ~bits, bits | SIGN)
