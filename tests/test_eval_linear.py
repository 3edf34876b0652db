"""The linear probe: its optimum, and what it is fitted, chosen and tested on."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from eval import results
from eval.embedding import cache
from eval.stages import linear_probe
from eval.stages.linear_probe import LinearProbeConfig
from eval.tasks import TASKS, splits
from pipeline.errors import InputError
from pipeline.sources.clip import Clip
from tests.support import sounds50
from train.models import linear


def blobs(classes: int, per_class: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((classes, 8))
    features = np.concatenate([c + 1.2 * rng.standard_normal((per_class, 8)) for c in centers]).astype(np.float32)
    features[:, 3] *= 1000.0  # embeddings have scales of their own
    return features, np.repeat(np.eye(classes, dtype=bool), per_class, axis=0)


@pytest.mark.parametrize("penalty", [1e-3, 1e-1])
def test_the_softmax_optimum_is_scikit_learns(penalty: float) -> None:
    features, truth = blobs(4)
    ours = linear.fit(features, truth, penalty, exclusive=True).scores(features)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0, ddof=1)
    theirs = LogisticRegression(C=1 / (penalty * len(features)), tol=1e-8, max_iter=5_000)
    theirs.fit(scaled, truth.argmax(axis=1))
    expected = theirs.predict_proba(scaled)
    probabilities = np.exp(ours - ours.max(axis=1, keepdims=True))
    assert np.abs(probabilities / probabilities.sum(axis=1, keepdims=True) - expected).max() < 1e-3


def test_the_sigmoid_optimum_is_scikit_learns_for_each_class() -> None:
    features, truth = blobs(3)
    truth = truth.copy()
    truth[::5, 0] = True  # several labels
    ours = 1 / (1 + np.exp(-linear.fit(features, truth, 1e-2, exclusive=False).scores(features)))
    scaled = (features - features.mean(axis=0)) / features.std(axis=0, ddof=1)
    for column in range(3):
        theirs = LogisticRegression(C=1 / (1e-2 * len(features)), tol=1e-8, max_iter=5_000)
        theirs.fit(scaled, truth[:, column])
        assert np.abs(ours[:, column] - theirs.predict_proba(scaled)[:, 1]).max() < 1e-3


def clips(folds: dict[str, int]) -> list[Clip]:
    return [Clip(key=f"{f}_{i}", uri="", source_id="", fold=f) for f, count in folds.items() for i in range(count)]


def test_each_fold_is_tested_once_and_never_chosen_on() -> None:
    listed = clips({"1": 5, "2": 4, "3": 6, "4": 3})
    parts = splits.split(TASKS["esc50"], listed)
    assert [part.name for part in parts] == ["1", "2", "3", "4"]
    for part in parts:
        rows = np.concatenate([part.train, part.validation, part.test])
        assert sorted(rows.tolist()) == list(range(len(listed)))
        assert {listed[row].fold for row in part.test} == {part.name}
        assert len({listed[row].fold for row in part.validation}) == 1
    assert sorted(np.concatenate([part.test for part in parts]).tolist()) == list(range(len(listed)))


def test_official_splits_are_kept() -> None:
    task = TASKS["fsd50k"]
    names = [*task.train, *task.validation, *task.test]
    listed = clips({name: 10 + i for i, name in enumerate(names)})
    (part,) = splits.split(task, listed)
    found = [{listed[row].fold for row in rows} for rows in (part.train, part.validation, part.test)]
    assert found == [set(task.train), set(task.validation), set(task.test)]


def test_without_a_validation_split_a_tenth_of_the_training_clips_chooses() -> None:
    task = TASKS["vggsound"]
    (part,) = splits.split(task, clips({task.train[0]: 2_000, task.test[0]: 10}))
    assert 150 < len(part.validation) < 260 and len(part.train) + len(part.validation) == 2_000
    assert not set(part.train) & set(part.validation) and len(part.test) == 10


@pytest.mark.parametrize(
    ("name", "folds", "message"),
    [("esc50", {"1": 3, "2": 3}, "at least 3"), ("fsd50k", {"test": 3}, "training and test")],
)
def test_too_few_folds_are_refused(name: str, folds: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        splits.split(TASKS[name], clips(folds))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes over four folds."""
    folder = sounds50.write(tmp_path / "esc50")
    table = folder / "meta" / "esc50.csv"
    head, *rows = (line.split(",") for line in table.read_text().splitlines())
    rows = [head, *([row[0], str(1 + i % 4), *row[2:]] for i, row in enumerate(rows))]
    table.write_text("".join(",".join(row) + "\n" for row in rows))
    return folder


def probe(model: str, folder: Path, out: Path, **more: object) -> dict[str, object]:
    linear_probe.run(LinearProbeConfig(model=model, task="esc50", task_dir=str(folder), out=str(out), **more))  # type: ignore[arg-type]
    return dict(results.read(str(out))["results"]["linear-probe esc50"])


def test_a_fold_without_audio_stays_in_the_count(clap: str, folder: Path, tmp_path: Path) -> None:
    whole = probe(clap, folder, tmp_path / "whole")
    assert (whole["n"], whole["num_listed"]) == (36, 36) and whole["fold_rule"] == "ESC-50 official folds, 4 of 5 folds"
    _, listed = splits.read("esc50", str(folder), ())
    for clip in listed:
        if clip.fold == "4":
            Path(clip.uri).unlink()
    found = probe(clap, folder, tmp_path / "out")
    assert (found["n"], found["num_listed"]) == (27, 36) and found["fold_rule"] == "ESC-50 official folds, 3 of 5 folds"
    assert set(found["missing"]) == {clip.key for clip in listed if clip.fold == "4"}  # type: ignore[call-overload]


def test_of_penalties_that_do_as_well_the_strongest_is_taken(clap: str, folder: Path, tmp_path: Path) -> None:
    equal = (1e-2, 1e-2 * (1 + 1e-6), 1e-2 * (1 - 1e-6))
    found = probe(clap, folder, tmp_path / "out", penalties=equal)
    assert {fold["penalty"] for fold in found["chosen"].values()} == {max(equal)}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        (("1", "2"), r"--folds '1, 2': esc50 has folds 1, 2, 3, 4, 5; at least 3"),
        (("1", "2", "3", "9"), r"--folds \('9',\): lists no clip of 9; folds: 1, 2, 3, 4"),
    ],
)
def test_folds_that_cannot_be_probed_are_told_before_anything_is_embedded(
    clap: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folds: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(cache, "_embed", None)
    with pytest.raises(InputError, match=message):
        probe(clap, folder, tmp_path / "out", folds=folds)


def test_official_splits_take_no_other_folds(tmp_path: Path) -> None:
    truth = tmp_path / "FSD50K.ground_truth"
    truth.mkdir()
    (truth / "dev.csv").write_text("fname,labels,mids,split\n1,Bark,/m/05tny_,train\n2,Rain,/m/06mb1,val\n")
    (truth / "eval.csv").write_text("fname,labels,mids\n3,Rain,/m/06mb1\n")
    for folds in ((), ("test",)):
        assert [clip.fold for clip in splits.read("fsd50k", str(tmp_path), folds)[1]] == ["train", "val", "test"]
    for folds in (("nonsense",), ("train",)):
        with pytest.raises(
            InputError, match=rf"--folds \('{folds[0]}',\): fsd50k has train, val, test and is tested on test"
        ):
            splits.read("fsd50k", str(tmp_path), folds)
