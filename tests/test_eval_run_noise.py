"""Differences over runs and clips: simulations in which the noise of runs and of clips is known."""

import numpy as np
import pytest

from eval.metrics import runs as run_noise
from eval.results import compare
from eval.results.compare import Difference

CLIPS = 100
CLIP_NOISE = 0.3
WEIGHTS = np.random.default_rng(0).multinomial(CLIPS, np.full(CLIPS, 1 / CLIPS), 300) / CLIPS


def simulate(rng: np.random.Generator, runs: int, run_noise: float, gain: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of clips in the runs of two recipes, (R, N) each, whose true difference is `gain`."""
    shared = rng.normal(0, CLIP_NOISE, CLIPS)  # clips are easy or hard for both
    recipes = []
    for mean in (0.0, gain):
        clips = shared + rng.normal(0, CLIP_NOISE / 2, CLIPS)  # and for one recipe
        own = rng.normal(0, CLIP_NOISE, (runs, CLIPS))  # and for one run
        recipes.append(mean + rng.normal(0, run_noise, (runs, 1)) + clips + own)
    return recipes[0], recipes[1]


def compared(first: np.ndarray, other: np.ndarray) -> Difference:
    """As compare.means, with resamples of the clips that are drawn once for all simulations."""
    by_run = [first.mean(axis=1), other.mean(axis=1)]
    drawn = WEIGHTS @ (other.mean(axis=0) - first.mean(axis=0))
    return compare.difference(by_run, drawn, lambda: 1.0, CLIPS)


@pytest.mark.parametrize("runs", [3, 5])
@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_the_interval_over_runs_and_clips_covers_the_truth(runs: int, noise: float) -> None:
    """In 600 simulations a rate of 95 % has a standard error of 0.9 points."""
    rng, covered, called = np.random.default_rng(runs), 0, 0
    for _ in range(600):
        found = compared(*simulate(rng, runs, noise))
        assert found.interval95_runs is not None
        covered += found.interval95_runs[0] <= 0 <= found.interval95_runs[1]
        called += found.differs == "yes"
    assert covered / 600 > 0.92 and called / 600 < 0.08


def test_the_interval_over_clips_alone_would_call_chance_a_difference() -> None:
    rng, called = np.random.default_rng(0), 0
    for _ in range(200):
        low, high = compared(*simulate(rng, 3, 0.1)).interval95
        called += low > 0 or high < 0
    assert called / 200 > 0.3


@pytest.mark.parametrize(("runs", "rate"), [(3, 0.7), (5, 0.95)])
def test_a_difference_of_four_deviations_is_found(runs: int, rate: float) -> None:
    rng = np.random.default_rng(1)
    found = [compared(*simulate(rng, runs, 0.05, gain=0.2)).differs for _ in range(200)]
    assert found.count("yes") / 200 > rate


@pytest.mark.parametrize("counts", [(3, 3), (2, 5)])
def test_the_order_of_runs_and_of_recipes_does_not_matter(counts: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    first, other = (rng.random((count, 40)) for count in counts)
    one, again, back = compare.means(first, other), compare.means(first[::-1], other[::-1]), compare.means(other, first)
    assert again.value == pytest.approx(one.value) and again.interval95 == pytest.approx(one.interval95)
    assert one.interval95_runs is not None and again.interval95_runs is not None and back.interval95_runs is not None
    assert again.interval95_runs == pytest.approx(one.interval95_runs, abs=0.02 * np.ptp(one.interval95_runs))
    assert back.value == pytest.approx(-one.value) and back.runs == one.runs[::-1]
    assert np.ptp(back.interval95_runs) == pytest.approx(np.ptp(one.interval95_runs), rel=0.02)


def test_many_runs_without_clip_noise_are_the_t_test_of_welch() -> None:
    import scipy.stats

    rng = np.random.default_rng(3)
    first, other = rng.normal(0, 1, 12), rng.normal(1, 2, 9)
    found = run_noise.hierarchical(first, other, np.full(50, other.mean() - first.mean()), n=1000)
    welch = scipy.stats.ttest_ind(other, first, equal_var=False)
    assert found.p == pytest.approx(welch.pvalue, rel=0.05)
    assert found.interval95 == pytest.approx(tuple(welch.confidence_interval()), abs=0.05)


def test_equal_runs_leave_the_noise_of_the_clips() -> None:
    """Three runs that answer every clip alike are one run: both intervals are of the clips alone."""
    rng = np.random.default_rng(4)
    first, other = (np.repeat(rng.random((1, 400)), 3, axis=0) for _ in range(2))
    found = compare.means(first, other)
    assert found.interval95_runs == pytest.approx(found.interval95, abs=0.1 * np.ptp(found.interval95))


@pytest.mark.parametrize(
    ("over_clips", "over_both", "verdict"),
    [
        ((0.1, 0.3), (0.05, 0.4), "yes"), ((-0.3, -0.1), (-0.4, -0.05), "yes"), ((0.1, 0.3), (-0.1, 0.5), "no"),
        ((-0.1, 0.3), (0.05, 0.4), "no"), ((0.0, 0.0), (0.0, 0.0), "no"), ((0.1, 0.3), None, compare.ONE_RUN),
    ],
)  # fmt: skip
def test_both_kinds_of_noise_must_allow_a_difference(
    over_clips: tuple[float, float], over_both: tuple[float, float] | None, verdict: str
) -> None:
    assert Difference(0.2, over_clips, 0.01, 100, over_both).differs == verdict


@pytest.mark.parametrize("counts", [(1, 1), (1, 4), (4, 1)])
def test_one_run_of_a_side_leaves_the_verdict_open_however_clear_the_clips_are(counts: tuple[int, int]) -> None:
    first, other = np.zeros((counts[0], 50)), np.ones((counts[1], 50))
    found = compare.means(first, other)
    assert found.p < 0.001 and found.value == 1
    assert found.differs == compare.ONE_RUN and found.interval95_runs is None and found.runs == counts


@pytest.mark.parametrize("counts", [(1, 1), (1, 5)])
def test_without_a_seed_one_run_has_no_noise_of_runs(counts: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    first, other = rng.random((counts[0], 80)) < 0.4, rng.random((counts[1], 80)) < 0.8
    seedless = counts[0] == 1, counts[1] == 1
    found = compare.means(first, other, seedless)
    spread = np.std(other.mean(axis=1), ddof=1) / np.sqrt(counts[1]) if counts[1] > 1 else 0.0
    assert found.interval95_runs is not None and found.differs == "yes" and found.runs == counts
    expected = np.hypot(np.ptp(found.interval95), 2 * 1.96 * spread)
    assert np.ptp(found.interval95_runs) == pytest.approx(expected, rel=0.15)
    if counts[1] > 1:  # of the other side, another seed still has to be tried
        assert compare.means(first, other[:1], seedless).differs == compare.ONE_RUN


def test_map_over_runs() -> None:
    rng = np.random.default_rng(5)
    truth = rng.random((80, 4)) < 0.4
    noise = rng.normal(size=(6, 80, 4))
    worse, better = noise[:3] + 0.3 * truth, noise[3:] + 3 * truth
    found = compare.mean_precision(worse, better, truth)
    assert found.differs == "yes" and found.runs == (3, 3) and found.value > 0.2
    assert compare.mean_precision(better, worse, truth).value == pytest.approx(-found.value)
    assert compare.mean_precision(worse[:1], better, truth).differs == compare.ONE_RUN
