"""The Polyphonic Sound Detection Score: are events found whole, by one threshold for all classes, without false alarms?

Definition: Bilen et al. 2020, arXiv 1910.08440. A detection counts where enough of it lies in events of its class (`dtc`).
An event is found where such detections cover enough of it (`gtc`). A false detection that lies in an event of another class
is a cross-trigger (`cttc`). The score is the area under the rate of found events over that of false detections, up to 100 an
hour. The packages sed-scores-eval 0.0.4 and psds-eval 0.5.3 fail with pandas 3 and numpy 2.4; a test mends the second one
and compares. Counts are kept by clip here, which gives intervals over clips.

Shapes: N = clips, C = classes, T = thresholds, S = frames of a clip, M = events of a clip, K = counted things.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

NUM_THRESHOLDS = 50
LARGEST, SMALLEST = 0.5, 1e-4  # shares of all frames and classes that are above the lowest and the highest threshold
SLACK = 1e-9  # of a share that lies at its limit
MAX_FALSE_PER_HOUR = 100.0
HOUR_S = 3600.0


class Track(NamedTuple):
    """A clip: scores of its frames, and its events."""

    scores: np.ndarray  # (S, C)
    edges_s: np.ndarray  # (S + 1,) where the frames begin and end
    duration_s: float
    event_class: np.ndarray  # (M,) int
    event_s: np.ndarray  # (M, 2) start and end


class Scenario(NamedTuple):
    """Tolerances and penalties."""

    dtc: float
    gtc: float
    cttc: float
    alpha_ct: float  # weight of cross-triggers among false detections
    alpha_st: float  # weight of the standard deviation over classes


SCENARIOS = {  # of DCASE's task on sound event detection
    "psds1": Scenario(dtc=0.7, gtc=0.7, cttc=0.3, alpha_ct=0.0, alpha_st=1.0),  # exact times
    "psds2": Scenario(dtc=0.1, gtc=0.1, cttc=0.3, alpha_ct=0.5, alpha_st=1.0),  # the right class, near its time
}


class Counted(NamedTuple):
    """Things that were counted, one a row."""

    cell: np.ndarray  # (K,) int: threshold * C + class
    clip: np.ndarray  # (K,) int
    other: np.ndarray  # (K,) int: class of the event that a cross-trigger lies in


class Counts(NamedTuple):
    """All that the score is computed of."""

    found: Counted
    false: Counted
    crossed: Counted
    num_events: np.ndarray  # (N, C)
    event_s: np.ndarray  # (N, C)
    duration_s: np.ndarray  # (N,)
    num_thresholds: int


def thresholds(tracks: Sequence[Track]) -> np.ndarray:
    """Return thresholds (T,) between the scores of half of all frames and classes and those of the highest."""
    scores = np.concatenate([track.scores.ravel() for track in tracks])
    return np.unique(np.quantile(scores, 1 - np.geomspace(LARGEST, SMALLEST, NUM_THRESHOLDS)))


def count(tracks: Sequence[Track], levels: np.ndarray, scenario: Scenario) -> Counts:
    """Count what is found at each threshold of levels (T,)."""
    num_classes = tracks[0].scores.shape[1]
    rows: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]] = ([], [], [])
    for clip, track in enumerate(tracks):
        for level, threshold in enumerate(levels):
            for kind, found in zip(rows, _count(track, float(threshold), scenario), strict=True):
                kind.append(
                    np.column_stack([level * num_classes + found[:, 0], np.full(len(found), clip), found[:, 1]])
                )
    length = [track.event_s[:, 1] - track.event_s[:, 0] for track in tracks]
    events, false, crossed = (Counted(*np.concatenate(kind).T) for kind in rows)
    return Counts(
        found=events,
        false=false,
        crossed=crossed,
        num_events=np.stack([np.bincount(track.event_class, minlength=num_classes) for track in tracks]),
        event_s=np.stack([np.bincount(t.event_class, s, num_classes) for t, s in zip(tracks, length, strict=True)]),
        duration_s=np.array([track.duration_s for track in tracks]),
        num_thresholds=len(levels),
    )


def _count(track: Track, threshold: float, scenario: Scenario) -> Iterator[np.ndarray]:
    """Yield found events, false detections and cross-triggers of a clip: rows of class and other class, (K, 2) int."""
    labels, start_s, end_s = detect(track.scores >= threshold, track.edges_s)
    shared = np.minimum(end_s[:, None], track.event_s[:, 1]) - np.maximum(start_s[:, None], track.event_s[:, 0])
    shared = np.maximum(shared, 0.0)  # (K, M) seconds
    same = labels[:, None] == track.event_class
    length = end_s - start_s
    right = (shared * same).sum(axis=1) >= (scenario.dtc - SLACK) * length
    covered = (shared * same * right[:, None]).sum(axis=0)
    found = covered >= (scenario.gtc - SLACK) * (track.event_s[:, 1] - track.event_s[:, 0])
    found &= covered > 0
    others = np.unique(track.event_class)
    inside = (shared * ~same) @ (track.event_class[:, None] == others)  # (K, other classes) seconds
    detection, column = np.nonzero(
        ~right[:, None] & (inside > 0) & (inside >= (scenario.cttc - SLACK) * length[:, None])
    )
    for classes, other in (
        (track.event_class[found], track.event_class[found]),
        (labels[~right], labels[~right]),
        (labels[detection], others[column]),
    ):
        yield np.column_stack([classes, other]).astype(np.int64)


def detect(active: np.ndarray, edges_s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return class, start and end (K,) of the runs of active frames (S, C) between edges (S + 1,), class by class."""
    quiet = np.zeros((active.shape[1], 1), np.int8)
    change = np.diff(np.concatenate([quiet, active.T.astype(np.int8), quiet], axis=1), axis=1)
    labels, first = np.nonzero(change == 1)
    _, last = np.nonzero(change == -1)
    return labels, edges_s[first], edges_s[last]


def score(counts: Counts, scenario: Scenario, weights: np.ndarray) -> float:
    """Return the score of clips that are drawn `weights` (N,) times each; NaN where no event is among them."""
    num_classes = counts.num_events.shape[1]
    events, event_s = weights @ counts.num_events, weights @ counts.event_s
    there = np.flatnonzero(events > 0)
    if not len(there):
        return float("nan")

    def rates(counted: Counted, scale: np.ndarray) -> np.ndarray:
        """Return sums of weights by threshold and class (T, C), each scaled by its other class."""
        size, weight = counts.num_thresholds * num_classes, weights[counted.clip] * scale[counted.other]
        return np.bincount(counted.cell, weight, size).reshape(-1, num_classes)

    found = rates(counts.found, 1 / np.maximum(events, 1))
    per_hour = np.full(num_classes, HOUR_S / (weights @ counts.duration_s))
    false = rates(counts.false, per_hour)
    if scenario.alpha_ct and len(there) > 1:
        crossed = rates(counts.crossed, np.where(events > 0, HOUR_S / np.maximum(event_s, SLACK), 0.0))
        false = false + scenario.alpha_ct * crossed / (len(there) - 1)
    return _area(found[:, there], false[:, there], scenario)


def _area(found: np.ndarray, false: np.ndarray, scenario: Scenario) -> float:
    """Return the area under the mean curve less its deviation, from rates (T, C), as a share of what can be had."""
    steps = np.unique(np.concatenate([[0.0], false.ravel()]))
    steps = steps[steps < MAX_FALSE_PER_HOUR]
    curves = np.stack([_curve(steps, false[:, i], found[:, i]) for i in range(found.shape[1])])
    height = np.maximum(curves.mean(axis=0) - scenario.alpha_st * curves.std(axis=0), 0.0)
    return float((height * np.diff([*steps, MAX_FALSE_PER_HOUR])).sum() / MAX_FALSE_PER_HOUR)


def _curve(steps: np.ndarray, false: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the most that is found with no more false detections than each step, from rates (T,)."""
    order = np.argsort(false, kind="stable")
    best = np.concatenate([[0.0], np.maximum.accumulate(found[order])])
    return best[np.searchsorted(false[order], steps, side="right")]
