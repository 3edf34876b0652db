"""Intervals of metrics over resampled clips, and d-prime. The metrics themselves are in train/metrics.

Legend: N = clips, C = classes, Q = queries, B = resamples of the clips.
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from train.metrics.average_precision import curves, macro

Interval = tuple[float, float]
NUM_RESAMPLES = 1_000
NUM_WEIGHINGS = 200  # resamples where each costs a pass over all scores: AudioSet's take seconds


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
    precision, area = (estimate(macro(each)) for each in found)
    return precision, area


def estimate(means: np.ndarray) -> MetricEstimate:
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


def bootstrap_median(values: np.ndarray, clips: np.ndarray) -> Interval:
    """Return the 95 % interval of the median of values (Q,), those of one clip (Q,) from 0 drawn together."""
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
    return percentiles(bootstrap_draws(statistic, n, seed, resamples))


def bootstrap_draws(
    statistic: Callable[[np.ndarray], float], n: int, seed: int = 0, resamples: int = NUM_RESAMPLES
) -> np.ndarray:
    """Return a statistic of each resample (B,) of n rows."""
    rng = np.random.default_rng(seed)
    return np.array([statistic(rng.integers(n, size=n)) for _ in range(resamples)])


def percentiles(drawn: np.ndarray) -> Interval:
    """Return the bounds between which 95 % of the draws (B,) lie."""
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)
