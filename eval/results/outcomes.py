"""What became of each clip in the runs of an evaluation: outcomes/*.npz, read and put into the same order of clips.

Shapes: R = runs, N = clips, C = classes, B = resamples of the clips.

A run's outcomes are `keys` (N,); `scores` and `truth` (N, C), by which mAP is computed; and values (N,) whose mean is a
number of the entry, NaN for a clip that does not count. Earlier versions left such clips out.
"""

import io
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from eval import metrics, results
from pipeline import storage
from pipeline.errors import InputError

Outcomes = dict[str, np.ndarray]
ENSEMBLE = "ensemble"
MAX_ROUNDING = 1e-3  # earlier results hold scores as float16


def read(folder: str, name: str) -> Outcomes:
    """Return the outcomes of one evaluation, stage and task; empty where a run has none.

    Raises:
        InputError: when they are damaged.
    """
    uri = results.outcomes_uri(folder, name)
    try:
        if not storage.exists(uri):
            return {}
        with np.load(io.BytesIO(storage.read(uri)), allow_pickle=False) as stored:
            held = dict(stored)
    except Exception as error:  # numpy, zipfile and zlib fail at damaged bytes in every way
        raise InputError("--results", folder, f"{uri} cannot be read ({error}); run `{name}` again") from None
    lengths = {values.shape[:1] for values in held.values()}
    shapes = {held[key].shape for key in ("scores", "truth") if key in held}
    if "keys" not in held or len(lengths) > 1 or len(shapes) > 1 or ("scores" in held) != ("truth" in held):
        raise InputError("--results", folder, f"{uri} holds no outcomes of clips; run `{name}` again")
    return held


def align(runs: Sequence[Outcomes]) -> list[Outcomes]:
    """Return the outcomes of the clips that all runs have, in the same order."""
    common = reduce(np.intersect1d, (run["keys"] for run in runs))
    rows = [np.intersect1d(common, run["keys"], return_indices=True)[2] for run in runs]
    return [{key: values[at] for key, values in run.items()} for run, at in zip(runs, rows, strict=True)]


def same_truth(runs: Sequence[Outcomes]) -> bool:
    """Return whether all aligned runs that have labels have the same."""
    held = [run["truth"] for run in runs if "truth" in run]
    return all(np.array_equal(truth, held[0]) for truth in held)


def measured(runs: Sequence[Outcomes]) -> list[str]:
    """Return what all runs have beside the keys and labels of the clips."""
    return sorted(set.intersection(*(set(run) for run in runs)) - {"keys", "truth"})


def counted(values: np.ndarray) -> np.ndarray:
    """Return the values (R, N) of the clips that count in all runs."""
    return np.asarray(values[:, np.isfinite(values).all(axis=0)])


def title(key: str) -> str:
    """Return the title of the headline number that belongs to an outcome.

    >>> [title(key) for key in ("scores", "text_to_audio R@10", "guidance tags cider_d")]
    ['mAP', 'text to audio R@10', 'CIDEr-D, tags']
    """
    if key.startswith("guidance "):
        _, guidance, score = key.split(" ")
        return f"{'CIDEr-D' if score == 'cider_d' else score}, {guidance}"
    return {"scores": "mAP", "frame_auroc": "frame AUROC"}.get(key, key.replace("_", " "))


def mean_precisions(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the macro mAP of runs, of all clips and then of each resample: (R, 1 + B) from (R, N, C) and (N, C)."""
    n = len(truth)
    weights = np.concatenate([np.ones((n, 1)), metrics.resamples(n)], axis=1)
    return np.stack([metrics.macro(metrics.curves(run.astype(np.float32), truth, weights).precision) for run in scores])


def intervals(folders: Sequence[str], name: str, entry: dict[str, Any]) -> dict[tuple[str, ...], metrics.Interval]:
    """Return intervals over clips of the mean over runs: path in the entry -> bounds, where outcomes have them.

    Args:
        folders: of the runs, which evaluated the same clips.
        name: stage and task.
        entry: the means over these runs, each with the number of every run in `runs`.
    """
    held = [read(folder, name) for folder in folders]
    if not all(held):
        return {}
    aligned = align(held)
    found = {}
    for key in measured(aligned):
        path = _path(entry, key)
        own = lookup(entry, path).get("runs", [])
        means, interval = _mean_over_runs(key, aligned)
        if len(own) == len(means) and np.allclose(own, means, rtol=0, atol=MAX_ROUNDING):
            found[path] = interval
    return found


def _mean_over_runs(key: str, runs: Sequence[Outcomes]) -> tuple[np.ndarray, metrics.Interval]:
    """Return the number of each run (R,), and the interval over clips of their mean, all on the same resamples."""
    values = np.stack([run[key] for run in runs])
    if key == "scores":
        drawn = mean_precisions(values, runs[0]["truth"])
        return drawn[:, 0], metrics.estimate(drawn.mean(axis=0)).interval95
    values = counted(values)
    mean = values.mean(axis=0, dtype=float)
    return values.mean(axis=1, dtype=float), metrics.bootstrap(lambda rows: float(mean[rows].mean()), len(mean))


def _path(entry: dict[str, Any], key: str) -> tuple[str, ...]:
    path = ("map",) if key == "scores" else tuple(key.split(" "))
    return (*path, ENSEMBLE) if ENSEMBLE in lookup(entry, path) else path


def lookup(entry: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """Return what stands at a path in an entry; empty where there is nothing, or no dictionary."""
    found: Any = entry
    for part in path:
        found = found.get(part) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}
