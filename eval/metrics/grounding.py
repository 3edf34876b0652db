"""When does what is named sound? Metrics of one phrase in one clip, from the scores of the frames.

Scores are compared within a clip alone, so that models need no common scale: a frame is active where its score is at least
half way from the lowest to the highest of the clip. Shapes: S = frames, M = segments.
"""

import numpy as np

from eval.metrics.psds import detect


def active_truth(edges_s: np.ndarray, segments_s: np.ndarray) -> np.ndarray:
    """Return in which frames (S,) a phrase sounds: those whose middle lies in one of its segments (M, 2)."""
    middle = (edges_s[:-1] + edges_s[1:]) / 2
    return ((middle[:, None] >= segments_s[:, 0]) & (middle[:, None] < segments_s[:, 1])).any(axis=1)


def area_under_roc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the share of pairs of an active and another frame (S,) that are in order, ties a half; NaN without pairs."""
    gap = scores[truth][:, None] - scores[~truth][None, :]
    return float(((gap > 0) + 0.5 * (gap == 0)).mean()) if gap.size else float("nan")


def excess(scores: np.ndarray) -> np.ndarray:
    """Return by how much scores (S,) are above half of their range; 0 below, and everywhere where all are equal."""
    return np.maximum(scores - (scores.min() + scores.max()) / 2, 0.0)


def best_onset(scores: np.ndarray, edges_s: np.ndarray) -> float:
    """Return where the best segment begins, seconds: the run of active frames (S,) with the largest sum of the excess."""
    above = excess(scores)
    active = scores >= (scores.min() + scores.max()) / 2
    _, start_s, end_s = detect(active[:, None], edges_s)
    sums = [
        above[(edges_s[:-1] >= start) & (edges_s[:-1] < end)].sum() for start, end in zip(start_s, end_s, strict=True)
    ]
    return float(start_s[int(np.argmax(sums))])


def onset_error(scores: np.ndarray, edges_s: np.ndarray, segments_s: np.ndarray) -> float:
    """Return how far the best segment begins from the nearest true onset, seconds."""
    return float(np.abs(segments_s[:, 0] - best_onset(scores, edges_s)).min())


def centre(scores: np.ndarray, edges_s: np.ndarray) -> float:
    """Return the mean time of the excess, seconds: where a phrase has its mass; the middle of the clip without any."""
    above, middle = excess(scores) * np.diff(edges_s), (edges_s[:-1] + edges_s[1:]) / 2
    total = above.sum()
    return float((above * middle).sum() / total) if total > 0 else float(edges_s[[0, -1]].mean())


def in_order(first: np.ndarray, second: np.ndarray, edges_s: np.ndarray) -> float:
    """Return 1 where the mass of the first phrase's scores (S,) comes before that of the second, 0 after, 0.5 for a tie."""
    gap = centre(second, edges_s) - centre(first, edges_s)
    return 0.5 if abs(gap) < 1e-9 else float(gap > 0)
