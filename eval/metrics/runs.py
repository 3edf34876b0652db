"""Noise of training runs: whether the means of two recipes differ by more than other seeds and other clips would move them.

Legend: R = runs of a recipe, N = clips, B = resamples of the clips.
"""

from typing import NamedTuple

import numpy as np

from eval.metrics.intervals import Interval

DRAWS = 10_000


class RunsAndClips(NamedTuple):
    """What is known of a difference between two recipes when both runs and clips are drawn anew."""

    interval95: Interval
    p: float  # two-sided


def hierarchical(first: np.ndarray, other: np.ndarray, drawn: np.ndarray, n: int, seed: int = 0) -> RunsAndClips:
    """Return the interval and the p of a difference by a hierarchical bootstrap over runs and clips.

    Each of 10,000 draws takes one resample of the clips for all runs, and from each recipe as many runs as it has, with
    replacement. What a drawn run is off its recipe's mean is taken over all clips: on a resample of the clips it would hold
    the noise of the clips a second time. Two corrections for few runs, both from Hesterberg 2015 (arXiv 1411.5279): the
    bootstrap of R values is too narrow by sqrt((R - 1) / R), so that deviations are multiplied by the inverse (as Davison
    and Hinkley 1997 do for clustered data); and the interval is the value -+ t times the spread of the draws, with Student's
    t in place of the normal distribution. Its degrees of freedom are those of Welch and Satterthwaite.

    The draws of the two recipes are independent. Runs of the same seed may share their data or their captioner, and what
    they share cancels in a difference. Pairing them would use that, but with three pairs it has two degrees of freedom, and
    a seed that is equal by name need not be equal in what it decides. Without pairing the interval is rather too wide.

    Args:
        first: the number of each run of a recipe over all clips, (R,); a single one has no noise of runs.
        other: likewise of the recipe to compare with it.
        drawn: mean of `other` over runs minus that of `first` on each resample of the clips, (B,).
        n: clips.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    value = float(other.mean() - first.mean())
    draws = drawn[rng.integers(len(drawn), size=DRAWS)] + _draw(other, rng) - _draw(first, rng)
    spread = float(draws.std())
    several = [runs for runs in (first, other) if len(runs) > 1]
    parts = [(runs.var(ddof=1) / len(runs), len(runs) - 1) for runs in several] + [(drawn.var(), max(n - 1, 1))]
    freedom = sum(part for part, _ in parts) ** 2 / max(sum(part**2 / df for part, df in parts), 1e-300)
    if spread < 1e-12:
        return RunsAndClips((value, value), float(abs(value) < 1e-12))
    import scipy.special  # here: its import takes long

    reach = spread * float(scipy.special.stdtrit(freedom, 0.975))
    p = 2 * float(scipy.special.stdtr(freedom, -abs(value) / spread))
    return RunsAndClips((value - reach, value + reach), p)


def _draw(runs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return how far the means of drawn runs are off the mean of the runs (R,), wide enough for few runs; (DRAWS,)."""
    if (count := len(runs)) == 1:
        return np.zeros(DRAWS)
    means = (runs - runs.mean())[rng.integers(count, size=(DRAWS, count))].mean(axis=1)
    return np.asarray(means * np.sqrt(count / (count - 1)))
