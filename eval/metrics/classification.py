"""Metrics in plain numpy, with hand-made tests.

Orientation: `similarity` is (rows, columns) with a row for each query; larger is closer. Legend: N = clips, C = classes,
Q = queries, G = gallery items, B = resamples of the clips. train/metrics/ranking.py ranks
the items of retrieval.
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from train.metrics.ranking import TIE

Interval = tuple[float, float]
NUM_RESAMPLES = 1_000
NUM_WEIGHINGS = 200  # resamples where each costs a pass over all scores: AudioSet's take seconds


def top_k(similarity: np.ndarray, target: np.ndarray, k: int) -> np.ndarray:
    """Return (N,) 1.0 where the true class is among the k best of (N, C); the target loses ties."""
    own = similarity[np.arange(len(target)), target][:, None]
    better = (similarity >= own).sum(axis=1) - 1  # others at least as close
    return (better < k).astype(float)


class Curves(NamedTuple):
    """What is measured of scores, for each class under each weighing of the clips; (C, B) each."""

    precision: np.ndarray  # area under the precision-recall steps; NaN without positives
    area: np.ndarray  # under the ROC; NaN without positives or without negatives


def curves(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> Curves:
    """Return average precision and area under the ROC of scores and 0/1 truth (N, C), each clip counting `weights` (N, B).

    Clips that tie count at once in the one, as scikit-learn has it, and half in the other.
    """
    weighed = weights.astype(np.float32)  # whole numbers: sums are exact up to 2**24
    found = [_one_class(column, np.flatnonzero(own), weighed) for column, own in zip(scores.T, truth.T, strict=True)]
    return Curves(*(np.stack(each) for each in zip(*found, strict=True)))


def _one_class(scores: np.ndarray, own: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both curves (B,) of one class from scores (N,), the rows of its P positives and weights (N, B).

    Only at a positive does anything happen, so that weights are summed from one to the next.
    """
    falling = -scores
    order = np.argsort(falling, kind="stable")
    ranked, own = falling[order], own[np.argsort(falling[own], kind="stable")]
    ends = [
        np.searchsorted(ranked, falling[own], side) for side in ("left", "right")
    ]  # of the clips that tie with each
    places = np.unique(np.concatenate([[0], *ends]))
    between = np.stack([rows.sum(axis=0) for rows in np.split(weights[order], places[1:])])  # far faster than reduceat
    above, reached = (_before(between)[np.searchsorted(places, end)] for end in ends)  # (P, B)
    mine = weights[own].astype(float)
    hits_above, hits = (_before(mine)[np.searchsorted(falling[own], falling[own], side)] for side in ("left", "right"))
    positive = mine.sum(axis=0)
    negative = weights.sum(axis=0) - positive
    won = negative - ((above - hits_above) + (reached - hits)) / 2
    return (
        (mine * hits / np.maximum(reached, 1)).sum(axis=0) / np.where(positive > 0, positive, np.nan),
        (mine * won).sum(axis=0) / np.where(positive * negative > 0, positive * negative, np.nan),
    )


def _before(rows: np.ndarray) -> np.ndarray:
    """Return the sums of the rows before each, and of all of them."""
    return np.concatenate([np.zeros_like(rows[:1]), np.cumsum(rows, axis=0)])


def class_average_precision(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the area (C,) under the precision-recall steps of each class; NaN for classes without positives."""
    return curves(scores, truth, np.ones((len(scores), 1))).precision[:, 0]


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the area under the precision-recall steps for one class; scores and 0/1 truth (N,). NaN without positives."""
    return float(class_average_precision(scores[:, None], truth[:, None])[0])


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the macro mean of `average_precision` over classes with positives; (N, C) each."""
    return float(macro(class_average_precision(scores, truth)))


def area_under_roc(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the share (C,) of pairs of a positive and a negative clip that are in order; ties count half.

    Scores and 0/1 truth are (N, C). NaN for classes that have only the one or only the other.
    """
    return curves(scores, truth, np.ones((len(scores), 1))).area[:, 0]


def mean_area_under_roc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the macro mean of `area_under_roc` over the classes that have one; NaN when none has."""
    return float(macro(area_under_roc(scores, truth)))


def macro(values: np.ndarray) -> np.ndarray:
    """Return the means over classes, the first axis, of those that are no NaN; NaN where all are."""
    there = np.isfinite(values)
    count = there.sum(axis=0)
    return np.asarray(np.where(there, values, 0).sum(axis=0) / np.where(count > 0, count, np.nan))


def resamples(n: int, seed: int = 0, count: int = NUM_WEIGHINGS) -> np.ndarray:
    """Return how often each of n clips is drawn, (n, count), when n are drawn with replacement `count` times."""
    rng = np.random.default_rng(seed)
    return np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(count)], axis=1)


class MetricEstimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    interval95: Interval


def tagging(scores: np.ndarray, truth: np.ndarray) -> tuple[MetricEstimate, MetricEstimate]:
    """Return the macro means of average precision and of the area under the ROC, with intervals over clips.

    Drawing rows anew is weighing the sorted ones by how often they were drawn: exact, and one sort for all resamples.
    A positive that is drawn twice is found beside itself, so that resamples are too good: the percentiles are shifted
    back by how much their mean is above the value.
    """
    n = len(scores)
    found = curves(scores, truth, np.concatenate([np.ones((n, 1)), resamples(n)], axis=1))
    precision, area = (_estimate(macro(each)) for each in found)
    return precision, area


def _estimate(means: np.ndarray) -> MetricEstimate:
    """Return the first of the means (1 + B,), and their interval around it, within 0 to 1."""
    value, drawn = float(means[0]), means[1:][np.isfinite(means[1:])]
    if not len(drawn):
        return MetricEstimate(value, (value, value))
    low, high = np.clip(np.percentile(drawn, [2.5, 97.5]) - (drawn.mean() - value), 0, 1)
    return MetricEstimate(value, (float(low), float(high)))


def d_prime(area: float) -> float:
    """Return how far two normal distributions of unit variance lie apart whose area under the ROC is `area`.

    Source: Hershey et al. 2017, arXiv 1609.09430, who take it of the mean area over classes.
    """
    return math.sqrt(2) * NormalDist().inv_cdf(min(max(area, 1e-12), 1 - 1e-12))


def query_average_precision(similarity: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """Return (Q,) average precision at k, of (Q, G) each: divided by min(relevant items, k).

    It is the expected one when items that tie (`ranking.TIE`) are in random order: at a place among `size` that tie, `own`
    of them relevant, stands a relevant one in own/size of the orders, and then each of those between is relevant in
    (own - 1)/(size - 1).
    """
    found = np.zeros(len(similarity))
    falling = -np.sort(-similarity, axis=1)[:, :k]
    for place in range(falling.shape[1]):
        gap = similarity - falling[:, place, None]
        above, tied = gap > TIE, np.abs(gap) <= TIE
        size, own = tied.sum(axis=1), (tied & relevant).sum(axis=1)
        between = (place - above.sum(axis=1)) * (own - 1) / np.maximum(size - 1, 1)
        found += own / size * (1 + (above & relevant).sum(axis=1) + between) / (place + 1)
    return np.asarray(found / np.minimum(relevant.sum(axis=1), k))


def bootstrap_median(values: np.ndarray, clips: np.ndarray) -> Interval:
    """Return the 95 % interval of the median of values (Q,), those of an owner (Q,) from 0 drawn together."""
    order = np.argsort(values, kind="stable")
    ranked, clip, n = values[order], clips[order], int(clips.max()) + 1

    def median(rows: np.ndarray) -> float:
        count = np.cumsum(np.bincount(rows, minlength=n)[clip])
        middle = np.searchsorted(count, [(count[-1] - 1) // 2, count[-1] // 2], side="right")
        return float(ranked[middle].mean())

    return bootstrap(median, n)


def bootstrap(
    statistic: Callable[[np.ndarray], float], n: int, seed: int = 0, resamples: int = NUM_RESAMPLES
) -> Interval:
    """Return the 95 % percentile interval of a statistic of n rows drawn with replacement; it takes row indices (n,)."""
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(n, size=n)) for _ in range(resamples)]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
