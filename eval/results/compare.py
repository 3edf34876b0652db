"""Whether two recipes differ by more than chance, from what became of each clip in their runs: outcomes/*.npz.

Shapes: R = runs of a recipe, N = clips that all runs of both evaluated, C = classes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eval import metrics
from eval.metrics import runs as run_noise
from eval.results import outcomes
from eval.results.outcomes import Outcomes
from eval.results.records import DifferenceRecord, Json

FLIPS, FLIPS_AT_ONCE = 10_000, 500
SEED = 0
ONE_RUN = "not known: one run"
Seedless = tuple[bool, bool]
NEITHER: Seedless = (False, False)
METHOD = (
    "Over the clips that all runs of both were evaluated on: the difference of the means over runs, in points. First "
    "interval: 95 %, by bootstrap over clips, all runs on the same resample. Second interval: 95 %, by hierarchical "
    "bootstrap over runs and clips, corrected for few runs, the runs of the two drawn independently; it needs two runs of "
    "each. p is two-sided. With two runs of each or more it is of Student's t with the spread of the hierarchical "
    "bootstrap. With one run it covers only the choice of clips: McNemar's exact test where a clip is right or wrong, "
    "10,000 random sign flips for other means over clips (all flips where they are fewer), the normal distribution with "
    "the bootstrap's spread for mAP. Two recipes differ where both intervals exclude 0. With one run of a recipe that is "
    "not known: another seed was not tried. Released weights as they were converted, and what is evaluated of them without "
    "training, have no seed and one run. Draws of clips or classes are paired: the second interval and p are of Student's t "
    "over the differences of the draws. Nothing is corrected for the number of comparisons."
)


class Difference(NamedTuple):
    """How far one recipe is from another."""

    value: float  # the other minus the first
    interval95: metrics.Interval  # over clips
    p: float  # two-sided; over runs and clips where there are several of each, else over clips
    n: int  # clips
    interval95_runs: metrics.Interval | None = None  # over runs and clips; None with one run of a recipe
    runs: tuple[int, int] = (1, 1)  # of the first and of the other

    @property
    def differs(self) -> str:
        """Return "yes" where both kinds of noise allow it, "no", or that it is not known."""
        if self.interval95_runs is None:
            return ONE_RUN
        beyond = (low > 0 or high < 0 for low, high in (self.interval95, self.interval95_runs))
        return "yes" if all(beyond) else "no"


def recipes(first: Sequence[str], other: Sequence[str], name: str, seedless: Seedless = NEITHER) -> Json:
    """Compare two recipes by the outcomes of their runs in one evaluation.

    Args:
        first: folders of results, one for each run.
        other: folders of the recipe to compare with the first.
        name: of the evaluation, stage and task.
        seedless: whether the first and the other have no seed, so that their one run is all there is.

    Returns:
        Title of the headline number -> value, interval95, p, n, runs and differs, with interval95_runs where there are
        several of each; or "unavailable" -> why. Empty where a recipe has no outcomes.

    Raises:
        InputError: when the outcomes of a run are damaged.
    """
    found = [[held for folder in folders if (held := outcomes.read(folder, name))] for folders in (first, other)]
    if not all(found):
        return {}
    aligned = outcomes.align([*found[0], *found[1]])
    if not len(aligned[0]["keys"]):
        return {"unavailable": "the two were evaluated on different clips"}
    if not outcomes.same_truth(aligned):
        return {"unavailable": "the labels of the clips differ between the two"}
    one, two = aligned[: len(found[0])], aligned[len(found[0]) :]
    differences = {outcomes.title(key): _compare(key, one, two, seedless) for key in outcomes.measured(aligned)}
    if not all(np.isfinite(difference.value) for difference in differences.values()):
        return {"unavailable": "no class has a clip among those that both were evaluated on"}
    return {title: plain(difference) for title, difference in differences.items()}


def _compare(key: str, first: Sequence[Outcomes], other: Sequence[Outcomes], seedless: Seedless) -> Difference:
    one, two = (np.stack([run[key] for run in runs]) for runs in (first, other))
    if key == "scores":
        return mean_precision(one, two, first[0]["truth"], seedless)
    both = outcomes.counted(np.concatenate([one, two]))
    return means(both[: len(one)], both[len(one) :], seedless)


def means(first: np.ndarray, other: np.ndarray, seedless: Seedless = NEITHER) -> Difference:
    """Compare two means over the same clips and over runs, (R, N) each."""
    gain = other.mean(axis=0, dtype=float) - first.mean(axis=0, dtype=float)
    drawn = metrics.bootstrap_draws(lambda rows: float(gain[rows].mean()), len(gain), SEED)

    def p_over_clips() -> float:
        binary = np.isin(gain, (-1, 0, 1)).all() and np.isin(np.concatenate([first, other]), (0, 1)).all()
        return mcnemar(int((gain > 0).sum()), int((gain < 0).sum())) if binary else sign_flips(gain)

    by_run = [runs.mean(axis=1, dtype=float) for runs in (first, other)]
    return difference(by_run, drawn, p_over_clips, len(gain), seedless)


def mean_precision(first: np.ndarray, other: np.ndarray, truth: np.ndarray, seedless: Seedless = NEITHER) -> Difference:
    """Compare two macro mean average precisions of scores (R, N, C) and truth (N, C)."""
    one, two = (outcomes.mean_precisions(scores, truth) for scores in (first, other))
    drawn = (two.mean(axis=0) - one.mean(axis=0))[1:]
    by_run, spread = [one[:, 0], two[:, 0]], float(np.nanstd(drawn))
    value = float(by_run[1].mean() - by_run[0].mean())

    def p_over_clips() -> float:
        return math.erfc(abs(value) / (math.sqrt(2) * spread)) if spread else float(value == 0)

    return difference(by_run, drawn, p_over_clips, len(truth), seedless)


def difference(
    by_run: Sequence[np.ndarray],
    drawn: np.ndarray,
    p_over_clips: Callable[[], float],
    n: int,
    seedless: Seedless = NEITHER,
) -> Difference:
    """Return a difference from the number of each run (R,) of both and its resamples (B,).

    Its p over clips alone is computed only where another seed was not tried: sign flips take long.
    """
    first, other = by_run
    value, interval = float(other.mean() - first.mean()), metrics.percentiles(drawn)
    counts = len(first), len(other)
    is_known = all(count > 1 or own for count, own in zip(counts, seedless, strict=True))
    if not is_known or not np.isfinite(value):
        return Difference(value, interval, p_over_clips(), n, runs=counts)
    both = run_noise.hierarchical(first, other, drawn[np.isfinite(drawn)], n, SEED)
    return Difference(value, interval, both.p, n, both.interval95, counts)


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


def plain(found: Difference) -> DifferenceRecord:
    """Return a difference as it is written."""
    record: DifferenceRecord = {
        "value": round(found.value, 6),
        "interval95": [round(bound, 6) for bound in found.interval95],
        "p": float(f"{found.p:.3g}"),
        "n": found.n,
        "runs": list(found.runs),
        "differs": found.differs,
    }
    if found.interval95_runs is not None:
        record["interval95_runs"] = [round(bound, 6) for bound in found.interval95_runs]
    return record


def from_record(found: Mapping[str, Any]) -> Difference:
    """Return a difference as `recipes` writes it."""
    bounds = found.get("interval95_runs")
    low, high = found["interval95"]
    return Difference(
        found["value"],
        (low, high),
        found["p"],
        found["n"],
        (bounds[0], bounds[1]) if bounds else None,
        tuple(found.get("runs", (1, 1))),
    )
