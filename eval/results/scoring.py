"""Scores of clips for classes -> metrics, the same for zero-shot, probes and fine-tuned models.

Shapes: N = clips, C = classes.
"""

from collections.abc import Sequence

import numpy as np

from eval import metrics, results
from eval.results.records import ClassRecord, Entry, MetricRecord
from pipeline.sources.clip import Clip


def truth(clips: Sequence[Clip], classes: Sequence[str]) -> np.ndarray:
    """Return which clip has which label, (N, C) bool."""
    column = {name: i for i, name in enumerate(classes)}
    found = np.zeros((len(clips), len(classes)), dtype=bool)
    for row, clip in enumerate(clips):
        found[row, [column[tag] for tag in clip.tags if tag in column]] = True
    return found


def classification(scores: np.ndarray, target: np.ndarray) -> dict[str, MetricRecord]:
    """Return `accuracy` and `top5` of scores (N, C) for true classes (N,)."""
    found = {}
    for name, k in (("accuracy", 1), ("top5", 5)):
        hit = metrics.top_k(scores, target, k)
        interval = metrics.bootstrap(lambda rows, hit=hit: float(hit[rows].mean()), len(hit))  # type: ignore[misc]
        found[name] = results.metric(float(hit.mean()), interval, chance=min(1.0, k / scores.shape[1]))
    return found


def tagging(scores: np.ndarray, truth: np.ndarray) -> dict[str, MetricRecord]:
    """Return `map`, `mauc` and `d_prime`, macro means over classes with positives, of scores and truth (N, C).

    There are no `mauc` and `d_prime` where every clip has every label that any has.
    """
    precision, area = metrics.tagging(scores, truth)
    found = {"map": results.metric(*precision, chance=float(truth[:, truth.any(axis=0)].mean()))}
    if np.isfinite(area.value):
        found["mauc"] = results.metric(*area, chance=0.5)
        low, high = (metrics.d_prime(bound) for bound in area.interval95)
        found["d_prime"] = results.metric(metrics.d_prime(area.value), (low, high), chance=0.0)
    return found


def details(scores: np.ndarray, truth: np.ndarray, classes: Sequence[str], rows: np.ndarray) -> Entry:
    """Return `per_class` and, of the rows with exactly one label, `confusion` (rows are the true classes)."""
    precision = metrics.class_average_precision(scores, truth)
    target, guess = truth[rows].argmax(axis=1), scores[rows].argmax(axis=1)
    confusion = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(confusion, (target, guess), 1)
    per_class: dict[str, ClassRecord] = {}
    for i, name in enumerate(classes):
        positives = int(truth[:, i].sum())
        per_class[name] = {"n": positives, "ap": round(float(precision[i]), 6) if positives else None}
        if confusion[i].any():
            per_class[name]["accuracy"] = round(float(confusion[i, i] / confusion[i].sum()), 6)
    return {"per_class": per_class, **({"confusion": confusion.tolist()} if len(rows) else {})}


def entry(scores: np.ndarray, truth: np.ndarray, classes: Sequence[str], exclusive: bool) -> Entry:
    """Return the metrics and details of a trained classifier's scores and truth (N, C)."""
    rows = np.arange(len(scores)) if exclusive else np.zeros(0, int)
    headline = classification(scores, truth.argmax(axis=1)) if exclusive else tagging(scores, truth)
    return {**headline, **details(scores, truth, classes, rows), "classes": list(classes)}


def value(scores: np.ndarray, truth: np.ndarray, exclusive: bool) -> float:
    """Return the accuracy, or the mAP where clips may have several labels, of scores and truth (N, C)."""
    if exclusive:
        return float((scores.argmax(axis=1) == truth.argmax(axis=1)).mean())
    return metrics.mean_average_precision(scores, truth)


def by_fold(clips: Sequence[Clip], scores: np.ndarray, truth: np.ndarray, exclusive: bool) -> dict[str, MetricRecord]:
    """Return the `value` of the clips of each fold, fold -> number, where they are of several; scores and truth (N, C)."""
    folds = np.array([clip.fold for clip in clips])
    names = dict.fromkeys(folds.tolist())
    if len(names) < 2:
        return {}
    return {name: results.metric(value(scores[folds == name], truth[folds == name], exclusive)) for name in names}


def one_label(truth: np.ndarray) -> np.ndarray:
    """Return the rows (n,) of the clips with exactly one label."""
    return np.flatnonzero(truth.sum(axis=1) == 1)


def outcomes(clips: Sequence[Clip], scores: np.ndarray, truth: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return what two runs are compared by.

    Hits of the rows with one label, NaN in the others; scores and truth of all clips where some have several labels.
    """
    found: dict[str, np.ndarray] = {"keys": results.keys(clips)}
    if len(rows):
        found["accuracy"] = np.full(len(clips), np.nan, np.float32)
        found["accuracy"][rows] = metrics.top_k(scores[rows], truth[rows].argmax(axis=1), 1)
    if len(rows) < len(clips):
        found |= {"scores": scores.astype(np.float32), "truth": truth}
    return found


def sentence(entry: Entry, prompt: str = "") -> str:
    """Return the headline of an entry in words, of one prompt where it has several."""
    name = "accuracy" if "accuracy" in entry else "map"
    metric = entry[name][prompt] if prompt else entry[name]
    low, high = metric["interval95"]
    clips = entry.get("n_single_label", entry["n"]) if name == "accuracy" else entry["n"]
    return (
        f"{'mAP' if name == 'map' else name} {100 * metric['value']:.1f} % (95 % interval {100 * low:.1f} to "
        f"{100 * high:.1f}, chance {100 * metric['chance']:.1f}, n {clips} of {entry['num_listed']})"
    )
