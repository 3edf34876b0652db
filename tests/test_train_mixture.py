"""Mixtures of caption clusters: clusters, the search for shares, and what training makes of a mixture."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import sources, storage
from pipeline.errors import InputError
from train import checkpoint
from train.configs import MIXTURE, PRETRAIN
from train.data import mixing
from train.stages import mixture
from train.stages.mixture import MixtureConfig, clusters, search
from train.stages.mixture.search import Tried
from train.stages.pretrain import PretrainConfig, clips
from train.stages.pretrain import run as pretrain

TINY: MixtureConfig = MIXTURE["tiny"][1]


def test_vectors_in_groups_are_clustered_by_group_largest_first_and_the_same_again() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], [10, 30, 20])
    vectors = (np.eye(3)[group] + 0.05 * rng.standard_normal((60, 3))).astype(np.float32)
    labels = clusters.assign(vectors, 3, seed=0)
    assert labels.tolist() == np.array([2, 0, 1])[group].tolist()
    assert labels.tolist() == clusters.assign(vectors, 3, seed=0).tolist()


def test_captions_with_the_same_words_are_in_one_cluster(clap: str) -> None:
    texts = [["a dog barks"], ["rain falls", "it rains"], ["a dog barks"], ["it rains", "rain falls"]]
    vectors = clusters.embed(texts, clap)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors[[0, 1]], vectors[[2, 3]], atol=1e-6)


def test_every_mixture_is_positive_and_adds_up_to_one() -> None:
    rng, own = np.random.default_rng(0), np.array([0.7, 0.2, 0.1])
    first = search.first(rng, own, 5)
    tried = Tried(first, first[:, 2])
    for shares in (first, search.following(rng, tried, 6), search.final(rng, tried)[None]):
        assert (shares > 0).all() and np.allclose(shares.sum(axis=1), 1)
    assert first[0].tolist() == own.tolist() and np.allclose(first[1], 1 / 3)


@pytest.mark.parametrize("best", [(0.6, 0.3, 0.1), (0.2, 0.2, 0.6), (0.34, 0.33, 0.33)])
def test_the_search_finds_the_best_mixture_of_an_objective_with_noise(best: tuple[float, ...]) -> None:
    """It ends nearer to the best mixture than the nearest of as many draws at random does on average."""

    def objective(shares: np.ndarray) -> np.ndarray:
        return 1 - ((shares - best) ** 2).sum(axis=1) + 0.01 * noise.standard_normal(len(shares))

    missed, drawn = [], []
    for seed in range(8):
        rng, noise = np.random.default_rng(seed), np.random.default_rng(100 + seed)
        shares = search.first(rng, np.array([0.5, 0.3, 0.2]), 10)
        tried = Tried(shares, objective(shares))
        shares = search.following(rng, tried, 6)
        tried = Tried(np.concatenate([tried.shares, shares]), np.concatenate([tried.scores, objective(shares)]))
        missed.append(np.linalg.norm(search.final(rng, tried) - best))
        random = rng.dirichlet(np.ones(3), 16)
        drawn.append(np.linalg.norm(random[np.argmax(objective(random))] - best))
    assert np.mean(missed) < 0.2 and np.mean(missed) < 1.2 * np.mean(drawn)


def test_a_prediction_is_near_the_score_where_it_was_tried_and_the_mean_far_away() -> None:
    tried = Tried(np.array([[0.98, 0.01, 0.01], [0.01, 0.98, 0.01]]), np.array([1.0, 0.0]))
    near, other, far = search.predict(tried, np.array([[0.98, 0.01, 0.01], [0.01, 0.98, 0.01], [0.01, 0.01, 0.98]]))
    assert near > 0.8 and other < 0.2 and far == pytest.approx(0.5, abs=0.05)


def recipe(corpus: str, **changes: Any) -> PretrainConfig:
    return dataclasses.replace(PRETRAIN["tiny"][1], data=(f"{corpus}/captioned_segments.csv",), **changes)


def test_an_epoch_takes_the_shares_of_a_mixture_and_stays_as_long(corpus: str, tmp_path: Path) -> None:
    plain = clips.read(recipe(corpus))
    keys = [*plain.datasets[0].keys]
    labels = np.array([0] * 18 + [1] * (len(keys) - 18), np.int32)
    mixing.publish_clusters(str(tmp_path), keys, labels)
    uri = mixing.publish_shares(str(tmp_path), "mine", np.array([0.25, 0.75]))
    mixed = clips.read(recipe(corpus, mixture=uri))
    assert [[*part.keys] for part in mixed.datasets] == [keys[:18], keys[18:]]
    assert clips.order(recipe(corpus), mixed).draws == (len(keys) // 4, len(keys) - len(keys) // 4)
    held = clips.read(recipe(corpus, mixture=uri, hold_out=4))
    assert held.validation is not None
    taken = {key for part in held.datasets for key in part.keys}
    assert taken | set(held.validation.keys) == set(keys) and not taken & set(held.validation.keys)


def test_a_mixture_of_other_clips_is_refused(corpus: str, tmp_path: Path) -> None:
    mixing.publish_clusters(str(tmp_path), ["another"], np.zeros(1, np.int32))
    uri = mixing.publish_shares(str(tmp_path), "mine", np.array([1.0]))
    with pytest.raises(InputError, match=r"--mixture .*has no cluster for the clip"):
        clips.read(recipe(corpus, mixture=uri))
    storage.publish_json(uri, {"shares": [0.0]})
    with pytest.raises(InputError, match=r"--mixture .*above 0"):
        clips.read(recipe(corpus, mixture=uri))
    with pytest.raises(InputError, match=r"--mixture .*is no mixture"):
        clips.read(recipe(corpus, mixture=f"{tmp_path}/absent.json"))
    with pytest.raises(InputError, match=r"--mixture .*leave out --weights"):
        recipe(corpus, mixture=uri, weights=(1.0,)).check()


def tiny(corpus: str, held_out: str, clap: str, out: Path) -> MixtureConfig:
    return dataclasses.replace(TINY, recipe=recipe(corpus, validation=held_out), model=clap, out=str(out))


def test_a_search_that_was_stopped_goes_on_to_the_same_mixture(
    corpus: str, held_out: str, clap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture.run(tiny(corpus, held_out, clap, tmp_path / "whole"))
    found = storage.read_json(str(tmp_path / "whole" / "search.json"))
    counted = sum(each["clips"] for each in found["clusters"])
    assert len(found["tried"]) == 3 and counted == len(sources.read_clips(recipe(corpus).data[0]))

    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(search, "following", _interrupt)
        mixture.run(tiny(corpus, held_out, clap, stopped))
    first = checkpoint.describe(str(stopped / "proxies" / "001"), "--out", "clap").revision
    written = (stopped / "proxies" / "001" / "config.json").stat().st_mtime_ns
    mixture.run(tiny(corpus, held_out, clap, stopped))
    assert storage.read_json(str(stopped / "search.json")) == found
    assert (stopped / "proxies" / "001" / "config.json").stat().st_mtime_ns == written, "it is not trained again"
    assert first == checkpoint.describe(str(tmp_path / "whole" / "proxies" / "001"), "--out", "clap").revision

    trained = recipe(corpus, mixture=str(stopped / "searched.json"), out=str(tmp_path / "model"))
    pretrain(trained)
    assert checkpoint.load(str(tmp_path / "model")).info.lineage["mixture"].endswith("searched.json")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_clusters": 1}, "--num-clusters 1"),
        ({"proxies": (1, 4)}, "--proxies"),
        ({"recipe": dataclasses.replace(TINY.recipe, validation="")}, "--recipe.validation"),
        ({"recipe": dataclasses.replace(TINY.recipe, validation="x", weights=(1.0,))}, "--recipe.weights"),
    ],
)
def test_flags_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    config = dataclasses.replace(TINY, recipe=dataclasses.replace(TINY.recipe, validation="x"))
    with pytest.raises(InputError, match=message):
        dataclasses.replace(config, **changes).check()
