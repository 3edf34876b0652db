"""Metrics in plain numpy, with hand-made tests.

Orientation: `similarity` is (rows, columns) with a row for each query; larger is closer. Legend: N = clips, C = classes,
Q = queries, G = gallery items.
"""

from collections.abc import Callable

import numpy as np

Interval = tuple[float, float]
NUM_RESAMPLES = 1_000


def top_k(similarity: np.ndarray, target: np.ndarray, k: int) -> np.ndarray:
    """Return (N,) 1.0 where the true class is among the k best of (N, C); the target loses ties."""
    own = similarity[np.arange(len(target)), target][:, None]
    better = (similarity >= own).sum(axis=1) - 1  # others at least as close
    return (better < k).astype(float)


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the area under the precision-recall steps for one class; scores and 0/1 truth (N,). NaN without positives."""
    order = np.argsort(-scores, kind="stable")
    hits = truth[order].astype(float)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / hits.sum()) if hits.any() else float("nan")


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the macro mean of `average_precision` over classes with positives; (N, C) each."""
    values = [average_precision(scores[:, c], truth[:, c]) for c in range(scores.shape[1])]
    return float(np.nanmean(values))


def best_ranks(similarity: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Return (Q,) the rank, from 1, of each query's best relevant item.

    Args:
        similarity: (Q, G).
        relevant: (Q, G) bool, at least one True in each row.

    Items that tie with the best relevant one count half each, so that ties get their mean rank.
    """
    best = np.where(relevant, similarity, -np.inf).max(axis=1, keepdims=True)
    above = ((similarity > best) & ~relevant).sum(axis=1)
    tied = ((similarity == best) & ~relevant).sum(axis=1)
    return np.asarray(1 + above + tied / 2)


def query_average_precision(similarity: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """Return (Q,) average precision at k: ranks sorted first, divided by min(relevant items, k)."""
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    hits = np.take_along_axis(relevant, order, axis=1).astype(float)
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return np.asarray((precision * hits).sum(axis=1) / np.minimum(relevant.sum(axis=1), k))


def bootstrap(
    statistic: Callable[[np.ndarray], float], n: int, seed: int = 0, resamples: int = NUM_RESAMPLES
) -> Interval:
    """Return the 95 % percentile interval of a statistic of n rows drawn with replacement; it takes row indices (n,)."""
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(n, size=n)) for _ in range(resamples)]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
