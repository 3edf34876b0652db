"""Metrics in plain numpy, with hand-made tests.

Orientation: `similarity` is (rows, columns) with a row for each query; larger is closer. Legend: N = clips, C = classes,
Q = queries, G = gallery items.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

Interval = tuple[float, float]
NUM_RESAMPLES = 1_000


def top_k(similarity: np.ndarray, target: np.ndarray, k: int) -> np.ndarray:
    """Return (N,) 1.0 where the true class is among the k best of (N, C); the target loses ties."""
    own = similarity[np.arange(len(target)), target][:, None]
    better = (similarity >= own).sum(axis=1) - 1  # others at least as close
    return (better < k).astype(float)


class Ranking:
    """Scores (N, C) of clips for classes, sorted once; `precision` may then weigh the clips again and again."""

    def __init__(self, scores: np.ndarray, truth: np.ndarray) -> None:
        """Take scores and 0/1 truth, (N, C) each."""
        self.order = np.argsort(-scores, axis=0, kind="stable")
        ranked = np.take_along_axis(scores, self.order, axis=0)
        self.hits = np.take_along_axis(truth, self.order, axis=0).astype(np.float64)
        ends = np.ones(ranked.shape, dtype=bool)
        ends[:-1] = ranked[:-1] != ranked[1:]
        place = np.where(ends, np.arange(len(ranked))[:, None], len(ranked))
        self.last = np.minimum.accumulate(place[::-1], axis=0)[::-1]  # of the clips that tie: all count at once

    def precision(self, weights: np.ndarray) -> np.ndarray:
        """Return the average precision (C,) of clips that count `weights` (N,) times; NaN without positives."""
        weight = weights[self.order]
        positive = weight * self.hits
        total = positive.sum(axis=0)
        seen, found = np.cumsum(weight, axis=0), np.cumsum(positive, axis=0)
        at = np.take_along_axis(found, self.last, axis=0) / np.maximum(np.take_along_axis(seen, self.last, axis=0), 1)
        return np.asarray((positive * at).sum(axis=0) / np.where(total > 0, total, np.nan))


def class_average_precision(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the area (C,) under the precision-recall steps of each class; NaN for classes without positives.

    Scores and 0/1 truth are (N, C). Clips that tie count at once, as scikit-learn has it.
    """
    return Ranking(scores, truth).precision(np.ones(len(scores)))


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the area under the precision-recall steps for one class; scores and 0/1 truth (N,). NaN without positives."""
    return float(class_average_precision(scores[:, None], truth[:, None])[0])


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the macro mean of `average_precision` over classes with positives; (N, C) each."""
    return float(np.nanmean(class_average_precision(scores, truth)))


def bootstrap_map(scores: np.ndarray, truth: np.ndarray, seed: int = 0, resamples: int = 200) -> Interval:
    """Return a 95 % interval of `mean_average_precision` over clips drawn with replacement.

    Drawing rows anew is weighing the sorted ones by how often they were drawn: exact, and one sort for all resamples.
    A positive that is drawn twice is found beside itself, so that resamples are too good: the percentiles are shifted
    back by how much their mean is above the value.
    """
    rng, ranking, n = np.random.default_rng(seed), Ranking(scores, truth), len(scores)
    drawn = (np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(resamples))
    values = [np.nanmean(ranking.precision(weights)) for weights in drawn]
    bias = np.mean(values) - np.nanmean(ranking.precision(np.ones(n)))
    low, high = np.clip(np.nanpercentile(values, [2.5, 97.5]) - bias, 0, 1)
    return float(low), float(high)


def area_under_roc(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the share (C,) of pairs of a positive and a negative clip that are in order; ties count half.

    Scores and 0/1 truth are (N, C). NaN for classes that have only the one or only the other.
    """
    positives = truth.sum(axis=0)
    negatives = len(truth) - positives
    ranks = np.stack([_mean_ranks(column) for column in scores.T], axis=1)
    wins = (ranks * truth).sum(axis=0) - positives * (positives + 1) / 2
    pairs = (positives * negatives).astype(float)
    return np.asarray(wins / np.where(pairs > 0, pairs, np.nan))


def mean_area_under_roc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the macro mean of `area_under_roc` over the classes that have one; NaN when none has."""
    areas = area_under_roc(scores, truth)
    return float(np.nanmean(areas)) if np.isfinite(areas).any() else float("nan")


def d_prime(area: float) -> float:
    """Return how far two normal distributions of unit variance lie apart whose area under the ROC is `area`.

    Source: Hershey et al. 2017, arXiv 1609.09430, who take it of the mean area over classes.
    """
    return math.sqrt(2) * NormalDist().inv_cdf(min(max(area, 1e-12), 1 - 1e-12))


def _mean_ranks(scores: np.ndarray) -> np.ndarray:
    """Return the ranks (N,) from 1 of scores in ascending order; those that tie share their mean."""
    _values, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse])


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
