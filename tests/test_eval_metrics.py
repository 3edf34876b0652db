"""Metrics on matrices made by hand."""

import numpy as np
import pytest
import sklearn.metrics
import torch

from eval import metrics
from eval.results import scoring
from eval.stages.retrieval import measure
from train.metrics import ranking


def test_top_k_and_ties() -> None:
    similarity = np.array([[0.9, 0.1, 0.2], [0.3, 0.5, 0.4], [0.2, 0.2, 0.1]])
    target = np.array([0, 2, 0])
    assert metrics.top_k(similarity, target, 1).tolist() == [1, 0, 0]  # a tie is no hit
    assert metrics.top_k(similarity, target, 2).tolist() == [1, 1, 1]


def test_average_precision() -> None:
    assert metrics.average_precision(np.array([0.9, 0.8, 0.7]), np.array([1, 0, 1])) == pytest.approx((1 + 2 / 3) / 2)
    assert np.isnan(metrics.average_precision(np.array([0.9]), np.array([0])))
    scores = np.array([[0.9, 0.1, 0.5], [0.1, 0.9, 0.5]])
    assert metrics.mean_average_precision(scores, np.array([[1, 0, 0], [0, 1, 0]])) == 1.0  # no positive: left out


def test_best_rank_is_of_the_best_caption_and_ties_share() -> None:
    similarity = np.array([[0.9, 0.8, 0.7, 0.1], [0.5, 0.5, 0.5, 0.1]])
    relevant = np.array([[False, True, True, False], [False, True, False, False]])
    assert ranking.rank_best(similarity, relevant).ranks.tolist() == [2.0, 2.0]


def test_map_at_k_of_perfect_retrieval_in_any_order_is_one() -> None:
    relevant = np.array([[True] * 5 + [False] * 15])
    for seed in range(5):
        similarity = np.array([np.r_[1 + np.random.default_rng(seed).random(5), np.zeros(15)]])
        assert metrics.query_average_precision(similarity, relevant, 10).tolist() == [1.0]
    late = np.array([[False, True, False, True]])
    assert metrics.query_average_precision(np.array([[4.0, 3, 2, 1]]), late, 10)[0] == pytest.approx(
        (1 / 2 + 2 / 4) / 2
    )


def test_retrieval_both_ways() -> None:
    similarity = np.array([[0.9, 0.2, 0.8, 0.1], [0.3, 0.7, 0.6, 0.4]])  # clips x captions
    owners = np.array([0, 0, 1, 1])
    found = measure(similarity, owners).metrics
    assert found["text_to_audio"]["R@1"]["value"] == 0.5  # captions 0 and 3 find their clip
    assert found["audio_to_text"]["R@1"]["value"] == 0.5  # clip 0 finds caption 0, clip 1 finds caption 1 of clip 0
    assert found["audio_to_text"]["MedR"]["value"] == 1.5
    assert found["text_to_audio"]["R@1"]["chance"] == 0.5
    assert found["audio_to_text"]["R@1"]["chance"] == 0.5
    four = measure(np.zeros((4, 8)), np.repeat(np.arange(4), 2)).metrics
    assert four["audio_to_text"]["R@5"]["chance"] == pytest.approx(1 - (6 * 5 * 4 * 3 * 2) / (8 * 7 * 6 * 5 * 4))


def test_bootstrap_covers_the_mean_and_shrinks_with_n() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for n in (50, 5_000):
        values = rng.random(n)
        low, high = metrics.bootstrap(lambda rows, values=values: float(values[rows].mean()), n)
        assert low < values.mean() < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 5
    assert metrics.bootstrap(lambda rows: float(rows.mean()), 9) == metrics.bootstrap(
        lambda rows: float(rows.mean()), 9
    )


def tagged(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((60, 7))
    truth = rng.random((60, 7)) < rng.uniform(0.05, 0.6, 7)
    truth[0] = True
    return (np.round(scores * 2) if ties else scores), truth


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_precision_and_area_are_scikit_learns(seed: int, ties: bool) -> None:
    scores, truth = tagged(seed, ties)
    for column in range(7):
        one, own = scores[:, column], truth[:, column]
        assert metrics.average_precision(one, own) == pytest.approx(sklearn.metrics.average_precision_score(own, one))
    areas = metrics.area_under_roc(scores, truth)
    assert areas == pytest.approx([sklearn.metrics.roc_auc_score(truth[:, c], scores[:, c]) for c in range(7)])
    assert metrics.mean_average_precision(scores, truth) == pytest.approx(
        sklearn.metrics.average_precision_score(truth, scores, average="macro")
    )
    target = truth.argmax(axis=1)
    theirs = sklearn.metrics.top_k_accuracy_score(target, tagged(seed, False)[0], k=3, labels=range(7))
    assert metrics.top_k(tagged(seed, False)[0], target, 3).mean() == pytest.approx(theirs)


@pytest.mark.parametrize("seed", range(3))
def test_tagging_is_torchmetrics(seed: int) -> None:
    from torchmetrics.classification import MultilabelAUROC, MultilabelAveragePrecision  # here: its import takes long

    scores, truth = tagged(seed, ties=False)
    tensors = (torch.from_numpy(scores).sigmoid(), torch.from_numpy(truth).long())
    precision = MultilabelAveragePrecision(num_labels=7, average=None)(*tensors).numpy()
    assert metrics.class_average_precision(scores, truth) == pytest.approx(precision, abs=1e-5)
    area = MultilabelAUROC(num_labels=7, average=None)(*tensors).numpy()
    assert metrics.area_under_roc(scores, truth) == pytest.approx(area, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_retrieval_is_torchmetrics_and_scikit_learns(seed: int) -> None:
    from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR

    rng = np.random.default_rng(seed)
    similarity, relevant = rng.random((20, 30)), rng.random((20, 30)) < 0.1  # torchmetrics drops scores of 0 and below
    relevant[:, 0] = True
    flat = (torch.from_numpy(similarity).flatten(), torch.from_numpy(relevant).flatten())
    query = torch.arange(20).repeat_interleave(30)
    ranks = ranking.rank_best(similarity, relevant).ranks
    for k in (1, 5, 10):
        theirs = RetrievalHitRate(top_k=k)(*flat, indexes=query)
        assert (ranks <= k).mean() == pytest.approx(float(theirs))
    assert (1 / ranks).mean() == pytest.approx(float(RetrievalMRR()(*flat, indexes=query)), abs=1e-6)
    whole = metrics.query_average_precision(similarity, relevant, k=30)
    theirs = [sklearn.metrics.average_precision_score(*pair) for pair in zip(relevant, similarity, strict=True)]
    assert whole == pytest.approx(theirs)


def test_perfect_reversed_random_and_tied_scores() -> None:
    truth = np.repeat([[True], [False]], [10, 30], axis=0)
    perfect = np.linspace(1, 0, 40)[:, None]
    cases = {"perfect": (perfect, 1.0), "reversed": (-perfect, 0.0), "tied": (np.zeros((40, 1)), 0.5)}
    for name, (scores, area) in cases.items():
        assert metrics.area_under_roc(scores, truth)[0] == pytest.approx(area), name
    assert metrics.class_average_precision(perfect, truth)[0] == 1.0
    assert metrics.class_average_precision(np.zeros((40, 1)), truth)[0] == pytest.approx(0.25), "the prevalence"
    assert metrics.class_average_precision(-perfect, truth)[0] == pytest.approx(
        np.mean([i / (30 + i) for i in range(1, 11)])
    )
    random = np.random.default_rng(0).standard_normal((40_000, 1))
    spread = np.repeat([[True], [False]], [10_000, 30_000], axis=0)
    assert metrics.class_average_precision(random, spread)[0] == pytest.approx(0.25, abs=0.01)
    assert metrics.d_prime(float(metrics.area_under_roc(random, spread)[0])) == pytest.approx(0, abs=0.03)


def test_d_prime_by_hand() -> None:
    """Hits of a unit normal above one that lies d' below: AUC = Phi(d' / sqrt 2)."""
    assert metrics.d_prime(0.5) == 0.0 and metrics.d_prime(0.9213503964748574) == pytest.approx(2.0)
    assert metrics.d_prime(0.1) == -metrics.d_prime(0.9) and np.isfinite(metrics.d_prime(1.0))


def test_classes_without_positives_or_negatives_count_in_no_mean() -> None:
    scores, truth = tagged(0, ties=False)
    truth[:, 2], truth[:, 4] = False, True
    precision, area = metrics.class_average_precision(scores, truth), metrics.area_under_roc(scores, truth)
    assert np.flatnonzero(np.isnan(precision)).tolist() == [2] and np.flatnonzero(np.isnan(area)).tolist() == [2, 4]
    assert metrics.mean_average_precision(scores, truth) == pytest.approx(np.nanmean(precision))
    assert metrics.mean_area_under_roc(scores, truth) == pytest.approx(np.nanmean(area))
    assert np.isnan(metrics.mean_area_under_roc(scores[:, [2]], truth[:, [2]]))


@pytest.mark.parametrize("ties", [False, True])
def test_weighing_clips_is_drawing_them(ties: bool) -> None:
    scores, truth = tagged(1, ties)
    truth[:, 3], truth[:, 4] = False, True  # a class without positives, and one without negatives
    drawn = np.random.default_rng(5).integers(60, size=(2, 60))
    weights = np.stack([np.bincount(rows, minlength=60) for rows in drawn], axis=1)
    precision, area = metrics.curves(scores, truth, weights)
    for column, rows in enumerate(drawn):
        one = metrics.curves(scores[rows], truth[rows], np.ones((60, 1)))
        assert precision[:, column] == pytest.approx(one.precision[:, 0], nan_ok=True)
        assert area[:, column] == pytest.approx(one.area[:, 0], nan_ok=True)
    assert np.isnan(precision[3]).all() and np.isnan(area[3:5]).all() and np.isfinite(precision[4]).all()


def test_intervals_of_tagging_hold_their_values_and_shrink_with_n() -> None:
    widths = []
    for n in (200, 5_000):
        truth = np.random.default_rng(0).random((n, 6)) < 0.2
        scores = np.random.default_rng(1).standard_normal((n, 6)) + truth
        found = scoring.tagging(scores, truth)
        for metric in found.values():
            assert metric["interval95"][0] < metric["value"] < metric["interval95"][1]
        bounds = found["mauc"]["interval95"]
        assert found["d_prime"]["interval95"] == pytest.approx([metrics.d_prime(bound) for bound in bounds], abs=1e-4)
        widths.append(bounds[1] - bounds[0])
    assert widths[1] < widths[0] / 3


def test_without_a_negative_clip_there_is_no_area() -> None:
    assert set(scoring.tagging(np.eye(3), np.ones((3, 3), bool))) == {"map"}


def test_the_interval_of_map_holds_its_value() -> None:
    """Without the shift the whole interval lies above the value where classes have few positives."""
    rng = np.random.default_rng(3)
    truth = rng.random((300, 40)) < 0.02
    truth[0] = True
    scores = rng.standard_normal((300, 40)) + 0.5 * truth
    low, high = metrics.tagging(scores, truth)[0].interval95
    assert low < metrics.mean_average_precision(scores, truth) < high
    assert 0.3 < (metrics.mean_average_precision(scores, truth) - low) / (high - low) < 0.7
