"""The sound detection score: counts by hand, and the same value as psds-eval, two methods of which are mended here."""

import numpy as np
import pandas as pd
import psds_eval
import pytest

from eval.metrics import psds
from eval.metrics.psds import SCENARIOS, Scenario, Track
from eval.metrics.quantiles import quantiles

EDGES = np.arange(11) * 0.5


class Mended(psds_eval.PSDSEval):  # type: ignore[misc]
    """psds-eval 0.5.3 where pandas 3 and numpy 2.4 lack what it calls: `fillna(method=)`, and int() of an array."""

    @staticmethod
    def step_curve(x: np.ndarray, xp: np.ndarray, yp: np.ndarray) -> np.ndarray:
        held = pd.DataFrame({"x": xp, "y": yp}).groupby("x").agg("max").cummax().reset_index()
        return held.merge(pd.Series(x, name="x"), how="right").ffill().fillna(0).y.to_numpy()

    @staticmethod
    def _auc(x: np.ndarray, y: np.ndarray, max_x: float, decreasing_y: bool = False) -> float:
        del decreasing_y
        inside = x < max_x
        return float((np.diff([*x[inside], max_x]) * y[inside]).sum())


def track(scores: np.ndarray, *events: tuple[int, float, float]) -> Track:
    table = np.array(events, float).reshape(-1, 3)
    return Track(scores, EDGES, 5.0, table[:, 0].astype(int), table[:, 1:])


def random_tracks(num: int) -> list[Track]:
    """Return clips of three classes whose scores are better than chance."""
    rng, found = np.random.default_rng(0), []
    for _ in range(num):
        scores = rng.random((10, 3))
        events = []
        for label in rng.permutation(3)[: rng.integers(1, 3)]:
            start, end = sorted(rng.choice(11, 2, replace=False) * 0.5)
            scores[(EDGES[:-1] >= start) & (EDGES[:-1] < end), label] += 0.6
            events.append((int(label), float(start), float(end)))
        found.append(track(scores, *events))
    return found


def scores_of(tracks: list[Track], levels: np.ndarray, scenario: Scenario) -> list[float]:
    """Return the score of the tracks, each drawn once."""
    return psds.score(psds.count(tracks, levels, scenario, np.ones((len(tracks), 1))), scenario).tolist()


def of_package(tracks: list[Track], levels: np.ndarray, scenario: Scenario) -> float:
    names = [f"clip{i}" for i in range(len(tracks))]
    columns = ["filename", "onset", "offset", "event_label"]
    truth = [
        (name, *span, f"class{own}")
        for name, clip in zip(names, tracks, strict=True)
        for own, span in zip(clip.event_class, clip.event_s, strict=True)
    ]
    lengths = pd.DataFrame({"filename": names, "duration": [clip.duration_s for clip in tracks]})
    evaluated = Mended(
        dtc_threshold=scenario.dtc,
        gtc_threshold=scenario.gtc,
        cttc_threshold=scenario.cttc,
        ground_truth=pd.DataFrame(truth, columns=columns),
        metadata=lengths,
    )
    for level in levels:
        rows = [
            (name, start, end, f"class{own}")
            for name, clip in zip(names, tracks, strict=True)
            for own, start, end in zip(*psds.detect(clip.scores >= level, clip.edges_s), strict=True)
        ]
        evaluated.add_operating_point(pd.DataFrame(rows, columns=columns))
    value = evaluated.psds(scenario.alpha_ct, scenario.alpha_st, psds.MAX_FALSE_PER_HOUR).value
    return float(value)


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("alpha_st", [0.0, 1.0])
def test_the_score_is_that_of_psds_eval(name: str, alpha_st: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an hour of these clips a false detection weighs much: with a lower limit the curve ends before its first step."""
    monkeypatch.setattr(psds, "MAX_FALSE_PER_HOUR", 2000.0)
    scenario, tracks = SCENARIOS[name]._replace(alpha_st=alpha_st), random_tracks(40)
    levels = psds.thresholds(tracks)[::5]
    (found,) = scores_of(tracks, levels, scenario)
    assert found == pytest.approx(of_package(tracks, levels, scenario), abs=1e-9)
    assert 0.02 < found < 0.98


def test_a_clip_drawn_twice_counts_as_two_clips_and_one_not_drawn_as_none() -> None:
    tracks, scenario = random_tracks(12), SCENARIOS["psds2"]
    levels, drawn = psds.thresholds(tracks), [0, 0, 3, 5, 5, 5, 7]
    weights = np.bincount(drawn, minlength=12).astype(float)
    again = [tracks[row] for row in drawn]
    expected = scores_of(again, levels, scenario)
    found = psds.score(psds.count(tracks, levels, scenario, np.stack([weights, 0 * weights], axis=1)), scenario)
    assert found[0] == pytest.approx(expected[0]) and np.isnan(found[1])


def test_counts_by_hand() -> None:
    """Class 0 sounds from 1 to 3 s. A detection of 1 to 3.5 s has 80 % inside and covers it; one of class 1 crosses it."""
    scores = np.zeros((10, 2))
    scores[2:7, 0], scores[4:8, 1] = 1.0, 1.0
    scenario, tracks, twice = SCENARIOS["psds1"]._replace(alpha_ct=1.0), [track(scores, (0, 1.0, 3.0))], np.array([[2]])
    counts = psds.count(tracks, np.array([0.5]), scenario, twice)
    assert (counts.found.tolist(), counts.false.tolist()) == ([[[2, 0]]], [[[0, 2]]])
    assert counts.crossed.tolist() == [[[0, 2 * 3600 / 4]]], "two in four seconds of events"
    strict = psds.count(tracks, np.array([0.5]), scenario._replace(dtc=0.9), twice)
    assert (strict.found.tolist(), strict.false.tolist()) == ([[[0, 0]]], [[[2, 2]]])


def test_perfect_scores_are_one_and_silent_ones_none() -> None:
    scores = np.zeros((10, 2))
    scores[2:6, 0] = 1.0
    tracks = [track(scores, (0, 1.0, 3.0)), track(scores[:, ::-1], (1, 1.0, 3.0))]
    for name, scenario in SCENARIOS.items():
        assert scores_of(tracks, np.array([0.5]), scenario) == [1.0], name
        assert scores_of(tracks, np.array([2.0]), scenario) == [0.0], name


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30])
def test_quantiles_are_those_of_all_values_together(scale: float) -> None:
    """Values of both signs, many of them equal, in arrays of several lengths."""
    rng = np.random.default_rng(0)
    parts = [(scale * rng.integers(-9, 9, (n, 3)) + scale * 1e-3).astype(np.float32) for n in (1, 4, 50)]
    shares = np.array([0.0, 0.1, 0.5, 0.77, 0.999, 1.0])
    together = np.concatenate([part.ravel() for part in parts]).astype(np.float64)
    assert quantiles(parts, shares).tolist() == pytest.approx(np.quantile(together, shares).tolist(), rel=1e-12)
