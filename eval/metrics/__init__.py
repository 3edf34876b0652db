"""Metrics as pure functions of arrays."""

from eval.metrics.intervals import (
    Interval,
    bootstrap,
    bootstrap_draws,
    bootstrap_median,
    d_prime,
    estimate,
    percentiles,
    resamples,
    tagging,
)
from train.metrics.average_precision import (
    area_under_roc,
    average_precision,
    class_average_precision,
    curves,
    macro,
    mean_area_under_roc,
    mean_average_precision,
)
from train.metrics.ranking import query_average_precision, top_k

__all__ = [
    "Interval",
    "area_under_roc",
    "average_precision",
    "bootstrap",
    "bootstrap_draws",
    "bootstrap_median",
    "class_average_precision",
    "curves",
    "d_prime",
    "estimate",
    "macro",
    "mean_area_under_roc",
    "mean_average_precision",
    "percentiles",
    "query_average_precision",
    "resamples",
    "tagging",
    "top_k",
]
