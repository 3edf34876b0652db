"""Retrieval where items are equally close: expected over the orders they may be in, against all orders one by one."""

import itertools

import numpy as np
import pytest

from eval import metrics
from eval.retrieval import RECALL_AT, caption_owners, measure
from pipeline.clip import Clip


def in_every_order(similarity: np.ndarray, relevant: np.ndarray, k: int) -> tuple[float, float, float]:
    """Return the mean rank of the best relevant item, its chance to be within k, and average precision at k, of a query."""
    ranks, hits, precisions = [], [], []
    for order in itertools.permutations(range(len(similarity))):
        ranked = relevant[sorted(order, key=lambda item: -similarity[item])]  # a stable sort: ties keep the order
        ranks.append(np.flatnonzero(ranked)[0] + 1)
        hits.append(ranks[-1] <= k)
        top = ranked[:k]
        precision = (np.cumsum(top) / np.arange(1, len(top) + 1))[top].sum()
        precisions.append(precision / min(relevant.sum(), k))
    return float(np.mean(ranks)), float(np.mean(hits)), float(np.mean(precisions))


@pytest.mark.parametrize("seed", range(12))
def test_ties_are_what_all_orders_give_on_average(seed: int) -> None:
    rng = np.random.default_rng(seed)
    similarity = rng.integers(0, 1 + seed % 4, (4, 6)).astype(float)  # of the first seeds all items tie
    relevant = rng.random((4, 6)) < 0.4
    relevant[np.arange(4), rng.integers(6, size=4)] = True
    best = metrics.best(similarity, relevant)
    for k in (1, 2, 3, 10):
        expected = np.array([in_every_order(*query, k) for query in zip(similarity, relevant, strict=True)])
        assert best.ranks == pytest.approx(expected[:, 0])
        assert best.within(k) == pytest.approx(expected[:, 1])
        assert metrics.query_average_precision(similarity, relevant, k) == pytest.approx(expected[:, 2])


def test_where_items_stand_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    similarity, relevant = rng.integers(0, 3, (5, 40)).astype(float), rng.random((5, 40)) < 0.3
    relevant[:, 0] = True
    order = rng.permutation(40)
    one, two = (metrics.query_average_precision(similarity[:, c], relevant[:, c], 10) for c in (np.arange(40), order))
    assert one == pytest.approx(two)


def test_a_model_that_hears_no_difference_gets_what_chance_gives() -> None:
    owners = np.repeat(np.arange(200), 5)
    tied, drawn = (measure(scores, owners).metrics for scores in (np.zeros((200, 1000)), random_scores(200, 1000)))
    for way in ("text_to_audio", "audio_to_text"):
        for k in RECALL_AT:
            assert tied[way][f"R@{k}"]["value"] == pytest.approx(tied[way][f"R@{k}"]["chance"], abs=1e-6)
        for name in ("mAP@10", "MedR", "MeanR"):
            assert tied[way][name]["value"] == pytest.approx(drawn[way][name]["value"], rel=0.3), (way, name)
    assert tied["audio_to_text"]["MeanR"]["value"] == pytest.approx(1 + 995 / 6)


def random_scores(clips: int, captions: int) -> np.ndarray:
    return np.random.default_rng(0).random((clips, captions))


def test_every_number_has_an_interval_that_holds_it() -> None:
    clips = [Clip(key=str(i), uri="", source_id="", captions=("x",) * (1 + i % 5)) for i in range(120)]
    owners = caption_owners(clips)
    similarity = random_scores(120, len(owners)) + 0.5 * (owners[None, :] == np.arange(120)[:, None])
    for found in measure(similarity, owners).metrics.values():
        assert set(found) == {*(f"R@{k}" for k in RECALL_AT), "mAP@10", "MedR", "MeanR"}
        for name, metric in found.items():
            assert metric["interval95"][0] <= metric["value"] <= metric["interval95"][1], name
            assert metric["interval95"][0] < metric["interval95"][1] or metric["value"] in (0, 1)


def test_the_interval_of_the_median_is_of_clips_drawn_with_all_their_captions() -> None:
    """Against the plain way: draw clips, join the ranks of their captions, take the median."""
    rng = np.random.default_rng(1)
    owners = np.repeat(np.arange(30), rng.integers(1, 5, 30))
    ranks = rng.integers(1, 50, len(owners)).astype(float)

    def median(rows: np.ndarray) -> float:
        return float(np.median(np.concatenate([ranks[owners == row] for row in rows])))

    assert metrics.bootstrap_median(ranks, owners) == metrics.bootstrap(median, 30)
