"""The Polyphonic Sound Detection Score: are events found whole, by one threshold for all classes, without false alarms?

Definition: Bilen et al. 2020, arXiv 1910.08440. A detection counts where enough of it lies in events of its class (`dtc`).
An event is found where such detections cover enough of it (`gtc`). A false detection that lies in an event of another class
is a cross-trigger (`cttc`). The score is the area under the rate of found events over that of false detections, up to 100 an
hour. The packages sed-scores-eval 0.0.4 and psds-eval 0.5.3 fail with pandas 3 and numpy 2.4; a test mends the second one
and compares. Several weighings of the clips are counted at once here, which gives intervals over clips. What a clip adds is
summed up at once: memory follows thresholds, classes and weighings, and not the number of detections.

Shapes: N = clips, B = weighings of them, C = classes, T = thresholds, S = frames of a clip, M = its events, O = classes of
these, K = its detections at all thresholds, P = pairs of a clip and a class of its events.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eval.metrics.quantiles import quantiles

NUM_THRESHOLDS = 50
LARGEST, SMALLEST = 0.5, 1e-4  # shares of all frames and classes that are above the lowest and the highest threshold
SLACK = 1e-9  # of a share that lies at its limit
MAX_FALSE_PER_HOUR = 100.0
HOUR_S = 3600.0
CLIPS_AT_ONCE = 32  # whose counts are held before they are weighed and summed up


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

PROTOCOL = (
    "PSDS as in DCASE's task 4 (DESED), of clips with events, as there since 2023: "
    + "; ".join(
        f"{name}: " + ", ".join(f"{field} {value:g}" for field, value in scenario._asdict().items())
        for name, scenario in SCENARIOS.items()
    )
    + f"; up to {MAX_FALSE_PER_HOUR:g} false detections an hour. At most {NUM_THRESHOLDS} thresholds, as many as there "
    "until 2022, but at quantiles of the scores, which are no probabilities. No median filter"
)


class Counts(NamedTuple):
    """All that the score is computed of, for each weighing of the clips."""

    found: np.ndarray  # (B, T, C) events
    false: np.ndarray  # (B, T, C) false detections
    crossed: np.ndarray  # (B, T, C) cross-triggers for each hour of the class they lie in, summed over such classes
    num_events: np.ndarray  # (B, C)
    duration_s: np.ndarray  # (B,)


class _ClipCounts(NamedTuple):
    """What a clip adds."""

    found: np.ndarray  # (T * C,) events
    false: np.ndarray  # (T * C,) false detections
    others: np.ndarray  # (O,) classes of its events; none where cross-triggers do not count
    crossed: np.ndarray  # (O, T * C) false detections that lie in events of each of these


def thresholds(tracks: Sequence[Track]) -> np.ndarray:
    """Return thresholds (T,) between the scores of half of all frames and classes and those of the highest."""
    shares = 1 - np.geomspace(LARGEST, SMALLEST, NUM_THRESHOLDS)
    return np.unique(quantiles([track.scores for track in tracks], shares))


def count(tracks: Sequence[Track], levels: np.ndarray, scenario: Scenario, weights: np.ndarray) -> Counts:
    """Count what is found at each threshold of levels (T,), with clips that are drawn `weights` (N, B) times each."""
    num_classes, times = tracks[0].scores.shape[1], weights.T.astype(np.float64)
    length = [track.event_s[:, 1] - track.event_s[:, 0] for track in tracks]
    events = np.stack([np.bincount(track.event_class, minlength=num_classes) for track in tracks])
    seconds = np.stack([np.bincount(t.event_class, s, num_classes) for t, s in zip(tracks, length, strict=True)])
    num_events = times @ events
    per_hour = np.where(num_events > 0, HOUR_S / np.maximum(times @ seconds, SLACK), 0.0)  # (B, C)
    found, false, crossed = (np.zeros((len(times), len(levels) * num_classes)) for _ in range(3))
    for first in range(0, len(tracks), CLIPS_AT_ONCE):
        clips = [_count(track, levels, scenario) for track in tracks[first : first + CLIPS_AT_ONCE]]
        drawn = times[:, first : first + CLIPS_AT_ONCE]
        found += drawn @ np.stack([clip.found for clip in clips])
        false += drawn @ np.stack([clip.false for clip in clips])
        row = np.repeat(np.arange(len(clips)), [len(clip.others) for clip in clips])  # (P,)
        other = np.concatenate([clip.others for clip in clips])
        crossed += (drawn[:, row] * per_hour[:, other]) @ np.concatenate([clip.crossed for clip in clips])
    shape = len(times), len(levels), num_classes
    seconds_in_all = times @ np.array([track.duration_s for track in tracks])
    return Counts(found.reshape(shape), false.reshape(shape), crossed.reshape(shape), num_events, seconds_in_all)


def _count(track: Track, levels: np.ndarray, scenario: Scenario) -> _ClipCounts:
    """Count found events, false detections and cross-triggers of a clip."""
    num_classes, cells = track.scores.shape[1], len(levels) * track.scores.shape[1]
    cell, first, last = _runs(np.searchsorted(levels, track.scores.T, side="right"))
    label, length = cell % num_classes, track.edges_s[last] - track.edges_s[first]
    classes = np.unique(track.event_class)
    until = _seconds_until(track, classes)
    inside = (until.take(last, axis=0) - until.take(first, axis=0)).T  # (O + 1, K) seconds; the last row is of no class
    row = np.full(num_classes, len(classes))
    row[classes] = np.arange(len(classes))
    is_right = inside[row[label], np.arange(len(label))] >= (scenario.dtc - SLACK) * length
    right, wrong = np.flatnonzero(is_right), np.flatnonzero(~is_right)
    others = classes if scenario.alpha_ct else classes[:0]
    least = (scenario.cttc - SLACK) * length[wrong]
    crossing = (inside[: len(others), wrong] >= least) & (inside[: len(others), wrong] > 0)
    crossing &= label[wrong] != others[:, None]
    return _ClipCounts(
        found=_found(track, scenario, cells, cell[right], track.edges_s[[first[right], last[right]]]),
        false=np.bincount(cell[wrong], minlength=cells),
        others=others,
        crossed=np.array([np.bincount(cell[wrong[own]], minlength=cells) for own in crossing]).reshape(-1, cells),
    )


def _seconds_until(track: Track, classes: np.ndarray) -> np.ndarray:
    """Return how long events of each class (O,) last until each edge (S + 1, O + 1); the last column is of no class."""
    length = track.event_s[:, 1] - track.event_s[:, 0]
    until = np.clip(track.edges_s[:, None] - track.event_s[:, 0], 0.0, length)  # (S + 1, M)
    return until @ (track.event_class[:, None] == np.append(classes, -1))


def _found(track: Track, scenario: Scenario, cells: int, cell: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Count the events (T * C,) that right detections cover, given their cells (K,), starts and ends (2, K)."""
    num_classes, (start_s, end_s) = track.scores.shape[1], track.event_s.T
    shared = np.minimum(spans[1][:, None], end_s) - np.maximum(spans[0][:, None], start_s)  # (K, M) seconds
    covered = np.zeros((cells // num_classes, len(start_s)))
    own = (cell % num_classes)[:, None] == track.event_class
    np.add.at(covered, cell // num_classes, np.maximum(shared, 0.0) * own)
    level, event = np.nonzero((covered > 0) & (covered >= (scenario.gtc - SLACK) * (end_s - start_s)))
    return np.bincount(level * num_classes + track.event_class[event], minlength=cells)


def detect(active: np.ndarray, edges_s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return class, start and end (K,) of the runs of active frames (S, C) between edges (S + 1,), class by class."""
    label, first, last = _runs(active.T.astype(int))
    return label, edges_s[first], edges_s[last]


def _runs(reached: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the runs of frames that reach a threshold, given how many of T thresholds each frame (C, S) reaches.

    Returns:
        threshold * C + class, first edge and last edge of each run (K,), sorted by them.
    """
    padded = np.pad(reached, ((0, 0), (1, 1)))
    before, after = padded[:, :-1].ravel(), padded[:, 1:].ravel()
    begins, ends = _passed(before, after), _passed(after, before)  # of one threshold and class by turns
    cell, first = np.divmod(begins, reached.shape[1] + 1)
    return cell, first, ends % (reached.shape[1] + 1)


def _passed(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return threshold * E + edge of all thresholds from `low` up to `high` at each of E edges of all classes, sorted."""
    number = np.maximum(high - low, 0)
    edge = np.repeat(np.arange(len(number)), number)
    earlier = np.repeat(np.cumsum(number) - number, number)
    return np.sort((low[edge] + np.arange(len(edge)) - earlier) * len(number) + edge)


def score(counts: Counts, scenario: Scenario) -> np.ndarray:
    """Return the score (B,) of each weighing; NaN where no event is among its clips."""
    return np.array([_score(*each, scenario) for each in zip(*counts, strict=True)])


def _score(
    found: np.ndarray,
    false: np.ndarray,
    crossed: np.ndarray,
    num_events: np.ndarray,
    duration_s: float,
    scenario: Scenario,
) -> float:
    """Return the score of one weighing; its arguments are the fields of `Counts`."""
    there = np.flatnonzero(num_events > 0)
    if not len(there):
        return float("nan")
    per_hour = false * (HOUR_S / duration_s)
    if scenario.alpha_ct and len(there) > 1:
        per_hour = per_hour + scenario.alpha_ct * crossed / (len(there) - 1)
    return _area(found[:, there] / num_events[there], per_hour[:, there], scenario)


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
