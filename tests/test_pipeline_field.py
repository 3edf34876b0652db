"""Sources from the field through the whole job: parts of recordings, members that stand twice, tasks of one's own."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from eval import tasks
from eval.stages import linear_probe, retrieval, zero_shot
from eval.stages.linear_probe import LinearProbeConfig
from eval.stages.retrieval import RetrievalConfig
from eval.stages.zero_shot import ZeroShotConfig
from eval.tasks import own_task
from pipeline import audio, storage
from pipeline.dataset.clip_index import ClipIndex
from pipeline.errors import InputError
from pipeline.graph.caption_config import CaptionConfig
from pipeline.planning.plan import read_plan
from pipeline.stages import caption, verify
from pipeline.stages.verify import VerifyConfig
from tests.test_pipeline_layouts import tar, write


def sound(seed: int, seconds: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(-9000, 9000, round(seconds * audio.SAMPLE_RATE_HZ)).astype(np.int16)


def test_parts_of_recordings_and_repeated_members_become_clips(caption_config: CaptionConfig, tmp_path: Path) -> None:
    recording, old, new = sound(0, 4.0), sound(1, 1.0), sound(2, 1.0)
    write(tmp_path / "source" / "calls" / "r.flac", audio.encode_flac(recording))
    rows = [{"audio_filepath": "r.flac", "offset": o, "duration": 1.25, "labels": ["Rain"]} for o in (0.0, 1.5)]
    late = {"audio_filepath": "r.flac", "offset": 3.5, "duration": 9, "labels": ["Rain"]}
    write(tmp_path / "source" / "calls" / "metadata.jsonl", "\n".join(map(json.dumps, [*rows, late])))
    text = json.dumps({"tag": ["Rain"]}).encode()
    members = [("a.flac", audio.encode_flac(old)), ("a.json", b"{}"), ("a.cls", b"1"), ("a.json", text)]
    tar(tmp_path / "source" / "packed" / "0.tar", [*members, ("a.flac", audio.encode_flac(new))])
    out = str(tmp_path / "out")
    config = dataclasses.replace(
        caption_config, source=str(tmp_path / "source"), guidance=("none",), max_bad_fraction=0.5
    )
    caption.run(dataclasses.replace(config, out=out))
    plan = read_plan(out)
    assert plan and plan.listing and plan.listing.read == {"rows": 3, "members": 5}
    assert plan.listing.merged == 1
    assert plan.listing.skipped == {"replaced by a later member of its name": 2, ".cls": 1}
    ledger = {row["key"]: row for row in storage.read_table(f"{out}/00000.parquet").to_pylist()}
    assert ledger["r_3500_12500"]["reason"] == "out_of_range"
    assert "a.flac stands 2 times in the tar, the last is used" in ledger["a"]["detail"]
    index = ClipIndex(out)
    decoded = {key: audio.decode(index.flac(row)) for row, key in enumerate(index.keys)}
    np.testing.assert_array_equal(decoded["r_0_1250"], recording[:40_000])
    np.testing.assert_array_equal(decoded["r_1500_2750"], recording[48_000:88_000])
    np.testing.assert_array_equal(decoded["a"], new)
    verify.run(VerifyConfig(data=out, in_process=True))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for split in ("train", "test"):
        for i in range(6):
            name = ("dog", "rain_drops")[i % 2]
            write(tmp_path / "mine" / split / name / f"{i}.flac", audio.encode_flac(sound(i, 0.5)))
    return str(tmp_path / "mine")


def test_a_task_of_ones_own_is_a_folder_of_classes(folder: str, clap: str, tmp_path: Path) -> None:
    out = str(tmp_path / "results")
    classes = write(tmp_path / "classes.txt", "rain_drops\ndog\ncat\n")
    common = {"model": clap, "task": "mine", "task_dir": folder, "out": out}
    zero_shot.run(ZeroShotConfig(**common, classes=classes))
    linear_probe.run(LinearProbeConfig(**common))
    from eval import results

    found = results.read(out)["results"]
    entry = found["zero-shot mine"]
    assert (entry["n"], entry["classes"], entry["fold_rule"]) == (
        6,
        ["rain drops", "dog", "cat"],
        "the split test of mine",
    )
    assert found["linear-probe mine"]["n"] == 6
    with pytest.raises(InputError, match=r"--task-dir .*none of its clips has a caption"):
        retrieval.run(RetrievalConfig(**common))
    short = write(tmp_path / "short.txt", "dog\ncat\n")
    with pytest.raises(InputError, match=r"--classes \('rain drops',\): 1 labels of clips are not in the list"):
        zero_shot.run(ZeroShotConfig(**common, classes=short))


def test_splits_of_ones_own_task(folder: str, tmp_path: Path) -> None:
    task, clips = tasks.read("mine", folder, ())
    assert ({clip.fold for clip in clips}, task.labels, task.captioned) == ({"test"}, "one", False)
    assert {clip.fold for clip in tasks.read("mine", folder, (), training=True)[1]} == {"train", "test"}
    table = write(
        tmp_path / "t.csv", "path_x,label,fold\n" + "".join(f"{i}.wav,{'ab'[i % 2]},{i % 3}\n" for i in range(6))
    )
    task, clips = tasks.read("mine", table, (), columns="file=path_x")
    assert task.folds == ("0", "1", "2") and len(clips) == 6 and task.fold_rule == "the folds 0, 1, 2 of t.csv"
    assert len(tasks.read("mine", table, ("2",), columns="file=path_x")[1]) == 2
    for arguments, problem in (
        (("mine", table, ("7",)), r"--folds \('7',\): no clip is in such a fold; folds: 0, 1, 2"),
        (("mine", "", ()), "--task-dir is missing: give the source of 'mine'"),
        (("", table, ()), "--task is missing"),
        (("ESC50".lower() + "s", table, ()), "did you mean esc50"),
    ):
        with pytest.raises(InputError, match=problem):
            tasks.read(*arguments, columns="file=path_x")
    assert set(own_task.TRAIN).isdisjoint(own_task.TEST)
