"""Average precision and the area under the ROC of scores for classes, in plain numpy.

Shapes: N = clips, C = classes, B = weightings of the clips, P = positives of a class.
"""

from typing import NamedTuple

import numpy as np


class Curves(NamedTuple):
    """Two metrics of each class under each weighting of the clips; (C, B) each."""

    precision: np.ndarray  # area under the precision-recall steps; NaN without positives
    area: np.ndarray  # under the ROC; NaN without positives or without negatives


def curves(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> Curves:
    """Return average precision and area under the ROC of scores and 0/1 truth (N, C), each clip counting `weights` (N, B).

    Tied clips count at once in average precision, as in scikit-learn, and half in the area.
    """
    weights = weights.astype(np.float32)  # whole numbers: sums are exact up to 2**24
    found = [
        _one_class(column, np.flatnonzero(labels), weights) for column, labels in zip(scores.T, truth.T, strict=True)
    ]
    return Curves(*(np.stack(each) for each in zip(*found, strict=True)))


def _one_class(scores: np.ndarray, positives: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both metrics (B,) of one class from scores (N,), the rows of its P positives and weights (N, B).

    Both change only at a positive, so that weights are summed from one positive to the next.
    """
    falling = -scores
    order = np.argsort(falling, kind="stable")
    ranked, positives = falling[order], positives[np.argsort(falling[positives], kind="stable")]
    ends = [np.searchsorted(ranked, falling[positives], side) for side in ("left", "right")]  # of the tied clips
    bounds = np.unique(np.concatenate([[0], *ends]))
    between = np.stack([rows.sum(axis=0) for rows in np.split(weights[order], bounds[1:])])  # far faster than reduceat
    above, reached = (_before(between)[np.searchsorted(bounds, end)] for end in ends)  # (P, B)
    weight = weights[positives].astype(float)
    tied = (np.searchsorted(falling[positives], falling[positives], side) for side in ("left", "right"))
    hits_above, hits = (_before(weight)[end] for end in tied)
    positive = weight.sum(axis=0)
    negative = weights.sum(axis=0) - positive
    won = negative - ((above - hits_above) + (reached - hits)) / 2
    return (
        (weight * hits / np.maximum(reached, 1)).sum(axis=0) / np.where(positive > 0, positive, np.nan),
        (weight * won).sum(axis=0) / np.where(positive * negative > 0, positive * negative, np.nan),
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
