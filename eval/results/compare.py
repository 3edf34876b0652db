"""Whether two models differ by more than chance, from what became of each clip under both: outcomes/*.npz of two runs.

Shapes: N = clips that both evaluated, C = classes.
"""

import io
import math
from typing import NamedTuple

import numpy as np

from eval import metrics, results
from eval.results.records import Json, MetricRecord
from pipeline import storage
from pipeline.errors import InputError

FLIPS, FLIPS_AT_ONCE = 10_000, 500
MAP_RESAMPLES = 200  # as for the interval of one mAP
SEED = 0
METHOD = (
    "Over the clips that both models were evaluated on: the difference in points, its 95 % interval by bootstrap over "
    "clips, both models on the same resample, and a two-sided p: McNemar's exact test where a clip is right or wrong, "
    "10,000 random sign flips for other means over clips (all flips where they are fewer), the normal distribution with "
    "the bootstrap's spread for mAP. "
    "Nothing is corrected for the number of comparisons."
)


class Difference(NamedTuple):
    """How far one model is from another."""

    value: float  # the other minus the first
    interval95: metrics.Interval
    p: float  # two-sided
    n: int


def runs(first: str, other: str, name: str) -> Json:
    """Compare two runs by their outcomes in one evaluation.

    Args:
        first: folder of results.
        other: folder of the results to compare with the first.
        name: of the evaluation, stage and task.

    Returns:
        Title of the headline number -> value, interval95, p and n; or "unavailable" -> why. Empty where a run has no
        outcomes.

    Raises:
        InputError: when the outcomes of a run are damaged.
    """
    found = [_read(folder, name) for folder in (first, other)]
    if not (found[0] and found[1]):
        return {}
    _common, *rows = np.intersect1d(found[0]["keys"], found[1]["keys"], return_indices=True)
    one, two = ({key: values[row] for key, values in each.items()} for each, row in zip(found, rows, strict=True))
    if not len(rows[0]):
        return {"unavailable": "the two were evaluated on different clips"}
    if "truth" in one and ("truth" not in two or not np.array_equal(one["truth"], two["truth"])):
        return {"unavailable": "the labels of the clips differ between the two"}
    differences = {}
    for key in sorted(set(one) & set(two) - {"keys", "truth"}):
        if key == "scores":
            differences["mAP"] = mean_precision(one["scores"], two["scores"], one["truth"])
        else:
            differences[key.replace("_", " ")] = means(one[key], two[key])
    return {title: _plain(difference) for title, difference in differences.items()}


def means(first: np.ndarray, other: np.ndarray) -> Difference:
    """Compare two means over the same clips, (N,) each."""
    gain = other.astype(float) - first.astype(float)
    interval = metrics.bootstrap(lambda rows: float(gain[rows].mean()), len(gain), SEED)
    binary = np.isin(np.concatenate([first, other]), (0, 1)).all()
    p = mcnemar(int((gain > 0).sum()), int((gain < 0).sum())) if binary else sign_flips(gain)
    return Difference(float(gain.mean()), interval, p, len(gain))


def mean_precision(first: np.ndarray, other: np.ndarray, truth: np.ndarray) -> Difference:
    """Compare two macro mean average precisions of scores and truth (N, C)."""
    n = len(truth)
    weights = np.concatenate([np.ones((n, 1)), metrics.resamples(n, SEED, MAP_RESAMPLES)], axis=1)
    one, two = (metrics.macro(metrics.curves(s.astype(np.float32), truth, weights).precision) for s in (first, other))
    value, drawn = float(two[0] - one[0]), (two - one)[1:]
    (low, high), spread = np.nanpercentile(drawn, [2.5, 97.5]), float(np.nanstd(drawn))
    p = math.erfc(abs(value) / (math.sqrt(2) * spread)) if spread else float(value == 0)
    return Difference(value, (float(low), float(high)), p, n)


def mcnemar(gained: int, lost: int) -> float:
    """Return the two-sided p of McNemar's exact test, from clips that only one model gets right."""
    import scipy.stats  # here: its import takes two seconds

    return float(scipy.stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def sign_flips(gain: np.ndarray) -> float:
    """Return the two-sided p that differences (N,) have a mean this far from 0 when each may as well have the other sign.

    Few differences are tested with all signs, more with `FLIPS` random ones.
    """
    moved = gain[gain != 0]
    if len(moved) < 2:  # one sign is as good as the other
        return 1.0
    import scipy.stats

    test = scipy.stats.permutation_test(
        (moved,),
        lambda values, axis: values.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=FLIPS,
        batch=FLIPS_AT_ONCE,
        rng=np.random.default_rng(SEED),
    )
    return float(test.pvalue)


def _read(folder: str, name: str) -> dict[str, np.ndarray]:
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


def _plain(found: Difference) -> MetricRecord:
    bounds = [round(bound, 6) for bound in found.interval95]
    p = float(f"{found.p:.3g}")
    return {"value": round(found.value, 6), "interval95": bounds, "p": p, "n": found.n}
