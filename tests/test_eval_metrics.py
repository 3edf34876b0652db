"""Metrics on matrices made by hand."""

import numpy as np
import pytest

from eval import metrics
from eval.retrieval import measure


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
    assert metrics.best_ranks(similarity, relevant).tolist() == [2.0, 2.0]


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
