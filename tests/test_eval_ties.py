"""Retrieval where items are equally close: expected over the orders they may be in, against all orders one by one."""

import csv
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eval import metrics, results
from eval.stages import retrieval
from eval.stages.retrieval import RECALL_AT, RetrievalConfig, clips_of_captions, measure
from pipeline.sources.clip import Clip
from tests.support import sounds50
from train.metrics import ranking
from train.validation import pairs


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
    best = ranking.rank_best(similarity, relevant)
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
    owners = clips_of_captions(clips)
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


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    vectors = rng.standard_normal((count, 64))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def values(audio: np.ndarray, text: np.ndarray, owners: np.ndarray) -> dict[str, float]:
    """Every number that `eval retrieval` gives for vectors, and the hits while training."""
    found = measure(audio.astype(np.float64) @ text.astype(np.float64).T, owners).metrics
    flat = {f"{way} {name}": metric["value"] for way, each in found.items() for name, metric in each.items()}
    tensors = [torch.from_numpy(each) for each in (audio, text, owners)]
    best = ranking.retrieve(tensors[0], tensors[1], torch.arange(len(audio)), tensors[2])
    return flat | {f"within {k}": round(float(best.within(k).mean()), 6) for k in RECALL_AT}


@pytest.mark.parametrize("chunk", [3, 1_024])
@pytest.mark.parametrize("seed", range(5))
def test_no_order_and_no_noise_changes_a_number(seed: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips and captions that are there several times, in a random order, each vector with the noise of another batch."""
    monkeypatch.setattr(ranking, "QUERIES", chunk)
    rng = np.random.default_rng(seed)
    kinds, owners = rng.integers(0, 8, 40), np.sort(np.r_[np.arange(40), rng.integers(0, 40, 60)])
    sounds, words, said = unit(rng, 8), unit(rng, 12), rng.integers(0, 12, 100)
    expected = values(sounds[kinds], words[said], owners)
    assert 0 < expected["audio_to_text R@10"] < 1
    for _ in range(4):
        audio, text = sounds[kinds], words[said]
        for vectors in (audio, text):
            noise = rng.standard_normal(vectors.shape)
            vectors += (
                3.5e-7 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
            )  # what a real tower was seen to have
        clips, captions = rng.permutation(40), rng.permutation(100)
        assert values(audio[clips], text[captions], np.argsort(clips)[owners[captions]]) == expected


def test_what_differs_by_more_than_noise_does_not_tie() -> None:
    similarity, relevant = np.array([[0.5, 0.5 + 2 * ranking.TIE]]), np.array([[True, False]])
    assert ranking.rank_best(similarity, relevant).ranks.tolist() == [2.0]
    assert ranking.rank_best(similarity - [[0, 1.5 * ranking.TIE]], relevant).ranks.tolist() == [1.5]


class Same:
    """A text tower for which all captions are the same."""

    def embed_texts(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0]]).repeat(len(texts), 1)


def test_ten_clips_with_the_same_five_captions_have_a_tenth() -> None:
    owners = np.repeat(np.arange(10), 5)
    found = measure(np.repeat(np.random.default_rng(0).random((10, 1)), 50, axis=1), owners).metrics
    assert {found[way]["R@1"]["value"] for way in found} == {0.1}
    embeddings = torch.from_numpy(unit(np.random.default_rng(0), 10)[:, :2])
    trained = pairs.retrieval(embeddings, Same(), [["a dog barks"] * 5] * 10)  # type: ignore[arg-type]
    assert [round(trained[f"{way}_R@1"], 6) for way in ("text_to_audio", "audio_to_text")] == [0.1, 0.1]


def test_the_whole_stage_gives_a_tenth_and_no_order_changes_it(clap: str, tmp_path: Path) -> None:
    """Ten clips, five captions each; the rows, the captions of a row and the batches in three orders."""
    files = sorted((sounds50.write(tmp_path / "esc50") / "audio").iterdir())[:10]
    rng = np.random.default_rng(0)

    def evaluated(name: str, captions: list[list[str]], batch_size: int) -> dict[str, Any]:
        (folder := tmp_path / name / "clotho" / "evaluation").mkdir(parents=True)
        with open(folder.parent / "clotho_captions_evaluation.csv", "w", newline="") as text:
            table = csv.writer(text)
            table.writerow(["file_name", *(f"caption_{i}" for i in range(1, 6))])
            for row in rng.permutation(10):
                (folder / files[row].name).write_bytes(files[row].read_bytes())
                table.writerow([files[row].name, *rng.permutation(captions[row])])
        config = RetrievalConfig(
            model=clap, task="clotho", task_dir=str(folder.parent), out=str(tmp_path / name), batch_size=batch_size
        )
        retrieval.run(config)
        entry = results.read(str(tmp_path / name))["results"]["retrieval clotho"]
        return {way: entry[way] for way in ("text_to_audio", "audio_to_text")}

    same = [["a dog barks"] * 5] * 10
    found = [evaluated(f"same {size}", same, size) for size in (64, 3)]
    assert {each[way]["R@1"]["value"] for each in found for way in each} == {0.1} and found[0] == found[1]
    few = [[f"sound {rng.integers(4)} of few" for _ in range(5)] for _ in range(10)]
    first, *others = (evaluated(f"few {size}", few, size) for size in (64, 3, 1))
    assert others == [first, first]
