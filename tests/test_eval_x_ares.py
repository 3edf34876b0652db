"""X-ARES' probes of the audio tower, and their rows of `eval passport`."""

from pathlib import Path

import numpy as np
import pytest
import torch

import eval.__main__ as eval_room
from eval import results
from eval.adapters import FrameEncoder
from eval.embedding import x_ares
from pipeline import cli, sources
from pipeline.sources.clip import Clip
from tests.support import hf_claps, sounds50
from tests.support.html_page import Page

PER_CLASS, CLASSES, FOLDS = 100, 3, 4


def passport(model: str, tasks: Path, out: Path, *words: str) -> int:
    line = ["passport", "esc50", "--model", model, "--task-dir", str(tasks), "--out", str(out), "--x-ares", *words]
    return cli.main("eval", "", eval_room.STAGES, line)


def blobs(spread: float) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Return embeddings around a point for each class, their classes and folds."""
    random = torch.Generator().manual_seed(0)
    target = torch.arange(CLASSES).repeat(PER_CLASS)
    centres = torch.randn(CLASSES, 64, generator=random)
    features = centres[target] + spread * torch.randn(len(target), 64, generator=random)
    return features, target, np.arange(len(target)) // CLASSES % FOLDS


def test_every_probe_learns_classes_and_none_the_fold_that_it_is_tested_on() -> None:
    features, target, folds = blobs(0.5)
    learned = x_ares.probe(features, target, folds, CLASSES)
    by_chance = x_ares.probe(
        torch.randn(features.shape, generator=torch.Generator().manual_seed(1)), target, folds, CLASSES
    )
    assert list(learned) == list(x_ares.PROBES)
    for name, scores in learned.items():
        assert (scores.argmax(axis=1) == target.numpy()).mean() > 0.95, name
        assert (by_chance[name].argmax(axis=1) == target.numpy()).mean() < 0.6, name
    swapped = target.clone()
    tested = folds == 0
    swapped[tested] = (target[tested] + 1) % CLASSES  # wrong labels of a fold change nothing in how it is scored
    again = x_ares.probe(features, swapped, folds, CLASSES)
    for name in ("layer, last epoch", "10 neighbours"):
        assert np.array_equal(again[name][tested], learned[name][tested])


def test_the_best_epoch_on_the_tested_fold_is_never_below_the_last() -> None:
    features, target, folds = blobs(8.0)
    found = x_ares.probe(features, target, folds, CLASSES)
    best, last = ((found[name].argmax(axis=1) == target.numpy()).mean() for name in list(x_ares.PROBES)[:2])
    assert best >= last and not np.array_equal(found["layer, best epoch"], found["layer, last epoch"])


def test_neighbours_are_weighted_by_their_cosine() -> None:
    """Three neighbours in all: the near one of one class outweighs the two far ones of the other."""
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.1]])
    scores = x_ares.probe(features, torch.tensor([0, 1, 1, 0]), np.array([0, 0, 0, 1]), 2)["10 neighbours"][3]
    near, far = np.exp(np.array([1.0, 0.1]) / np.hypot(1.0, 0.1) / x_ares.TEMPERATURE)
    assert scores == pytest.approx(np.array([near, 2 * far]) / (near + 2 * far), rel=1e-4)


def test_a_clip_is_the_mean_of_its_frames(clap: str, tmp_path: Path) -> None:
    sounds50.write(tmp_path / "esc50", per_fold=1)
    (file, *_) = sorted((tmp_path / "esc50" / "audio").iterdir())
    encoder = FrameEncoder(clap)
    clip = Clip(key="a", uri=str(file), source_id="a")
    samples = sources.read_or_reason(clip.location, encoder.sampling_rate)
    assert isinstance(samples, np.ndarray)
    expected = encoder(torch.from_numpy(samples.astype(np.float32) / 2**15)).mean(dim=1)
    torch.testing.assert_close(x_ares.mean_frames(encoder, encoder.sampling_rate, [clip]), expected)


def test_the_passport_of_a_clap_of_transformers_has_probes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, tasks = hf_claps.save(tmp_path / "tiny-clap"), sounds50.write(tmp_path / "esc50", per_fold=2)
    out = tmp_path / "out"
    assert passport(f"hf:{folder}", tasks, out) == 0
    shown = capsys.readouterr().out
    protocols = results.read(str(out))["results"]["passport esc50"]["protocols"]
    assert set(protocols["X-ARES"]) == set(x_ares.PROBES)
    for name, found in protocols["X-ARES"].items():
        low, high = found["number"]["interval95"]
        assert low <= found["number"]["value"] <= high and name in shown
    assert shown.count("trained on labels") == 3
    page = Page((out / "passport-esc50.html").read_text()).texts
    assert all(source in page for source in x_ares.PROBES.values()) and any("tiny-clap" in text for text in page)
    assert results.read(str(out))["model"]["name"] == "tiny-clap"


def test_one_fold_cannot_be_probed(clap: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = sounds50.write(tmp_path / "esc50", per_fold=1)
    assert passport(clap, tasks, tmp_path / "out", "--folds", "1") == 2
    assert "--x-ares True: clips of two folds or more" in capsys.readouterr().err
