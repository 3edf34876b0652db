"""How many of the first results of a class's texts have the class as a tag, beside chance.

Legend: B = resamples, R = ranked clips of a query.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval import metrics
from eval.metrics import Interval
from eval.search.query import Mode, Query
from eval.search.searcher import Hit, Searcher

RESAMPLES = 1_000
DEPTH = 5  # times k: results that a resample, which leaves out every third clip, may reach


@dataclass(frozen=True, kw_only=True)
class ClassPrecision:
    """The share of the first k results that have the tag of a class."""

    name: str
    queries: int
    """Texts that were searched for; the share is the mean over them."""
    clips: int
    """Indexed clips that have the tag."""
    value: float
    interval95: Interval
    """Over clips."""
    chance: float
    """Share of the indexed clips that have the tag."""


def measure(searcher: Searcher, texts: Mapping[str, Sequence[str]], k: int, mode: Mode) -> list[ClassPrecision]:
    """Search for the texts of each class; return the classes in their order, and their mean as the last one, `mean`.

    Intervals are over clips: each clip is drawn a number of times that is Poisson of mean 1, the same for all classes.
    A result that was drawn twice takes two of the k places. DEPTH * k is MAX_K at most.
    """
    rng = np.random.default_rng(0)
    drawn: dict[str, np.ndarray] = {}  # id -> (B,) how often a clip is drawn
    counts, total = dict(searcher.tags()), searcher.info.clips
    found, all_means = [], []
    for name, queries in texts.items():
        ranked = [searcher.search(Query(text=text, mode=mode, k=DEPTH * k)) for text in sorted(queries)]
        for hit in (hit for hits in ranked for hit in hits):
            if hit.id not in drawn:
                drawn[hit.id] = rng.poisson(1.0, RESAMPLES)
        means = np.mean([_shares(hits, name, k, drawn) for hits in ranked], axis=0)
        all_means.append(means)
        found.append(_class(name, len(queries), counts.get(name, 0), means, total))
    mean = _class("mean", sum(each.queries for each in found), 0, np.mean(all_means, axis=0), total)
    chance = float(np.mean([each.chance for each in found]))
    return [*found, dataclasses.replace(mean, clips=total, chance=chance)]


def _shares(hits: Sequence[Hit], tag: str, k: int, drawn: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the share of the first k results that have a tag: as ranked, then for each resample; (1 + B,)."""
    if not hits:
        return np.zeros(1 + RESAMPLES)
    relevant = np.array([tag in hit.tags for hit in hits])  # (R,)
    times = np.concatenate([np.ones((1, len(hits))), np.stack([drawn[hit.id] for hit in hits], axis=1)])  # (1 + B, R)
    before = np.cumsum(times, axis=1) - times
    taken = np.clip(k - before, 0, times)
    return np.asarray((taken * relevant).sum(axis=1) / k)


def _class(name: str, queries: int, clips: int, means: np.ndarray, total: int) -> ClassPrecision:
    value, interval = metrics.estimate(means)
    return ClassPrecision(
        name=name, queries=queries, clips=clips, value=value, interval95=interval, chance=clips / total
    )
