"""Draws: runs of two recipes that are paired by name, each pair on clips or classes of its own, such as unseen classes.

Shapes: R = draws.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.results import compare
from eval.results.compare import Difference
from eval.results.records import Json


def recipes(first: Mapping[str, str], other: Mapping[str, str], name: str) -> Json:
    """Compare two recipes draw by draw, in one evaluation.

    Args:
        first: name of a draw -> folder of its results.
        other: likewise of the recipe to compare with the first.
        name: of the evaluation, stage and task.

    Returns:
        As `compare.recipes`, over the draws that both have.

    Raises:
        InputError: when the outcomes of a run are damaged.
    """
    shared = [draw for draw in first if draw in other]
    if not shared:
        return {"unavailable": "the two have no draw of the same name"}
    pairs: list[Any] = [compare.recipes([first[draw]], [other[draw]], name) for draw in shared]
    if failed := next((pair for pair in pairs if not pair or "unavailable" in pair), None):
        return failed
    titles = [title for title in pairs[0] if all(title in pair for pair in pairs)]
    return {title: compare.plain(_mean([compare.from_record(pair[title]) for pair in pairs])) for title in titles}


def _mean(draws: Sequence[Difference]) -> Difference:
    """Return the mean difference of R draws; its noise over clips is that of independent sets of clips."""
    if len(draws) == 1:
        return draws[0]
    values = np.array([draw.value for draw in draws])
    reach = np.array([(high - low) / 2 for low, high in (draw.interval95 for draw in draws)])  # (R,)
    value, width = float(values.mean()), float(np.sqrt((reach**2).sum()) / len(draws))
    n, counts = sum(draw.n for draw in draws), (len(draws), len(draws))
    over_clips = (value - width, value + width)
    if values.std() < 1e-12:
        return Difference(value, over_clips, float(abs(value) < 1e-12), n, (value, value), counts)
    import scipy.stats  # here: its import takes two seconds

    test = scipy.stats.ttest_1samp(values, 0.0)
    low, high = test.confidence_interval(0.95)
    return Difference(value, over_clips, float(test.pvalue), n, (float(low), float(high)), counts)
