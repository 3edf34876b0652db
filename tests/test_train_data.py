"""What is trained on: listings, shards, indexes; which clips and captions of them."""

import numpy as np
import pytest

from pipeline import audio, storage
from pipeline.dataset import overlays, shards
from pipeline.dataset.selection import SelectionConfig, keep_best
from pipeline.errors import InputError
from pipeline.sources.clip import Clip
from train.data import clip_sets, reading
from train.data.clip_sets import ListedClips
from train.data.datasets import open_data


def test_broken_files_are_found_and_left_out(tmp_path) -> None:
    (tmp_path / "good.flac").write_bytes(audio.encode_flac(np.zeros(3200, np.int16)))
    (tmp_path / "bad.flac").write_bytes(b"")
    clips = [
        Clip(key=name, uri=f"{tmp_path}/{name}.flac", source_id=name, captions=("x",)) for name in ("good", "bad", "no")
    ]
    broken = ListedClips(clips, ()).find_broken()
    assert broken == {"bad": "empty", "no": "missing"}
    assert list(ListedClips(clips, (), broken).keys) == ["good"]


def test_label_phrases_stand_in_for_missing_captions() -> None:
    clips = [
        Clip(key="a", uri="", source_id="a", tags=("Dog",), captions=("a dog barks",)),
        Clip(key="b", uri="", source_id="b", tags=("Rain", "Wind")),
        Clip(key="c", uri="", source_id="c"),
    ]
    listed = ListedClips(clips, ("the sound of {}",))
    assert dict(zip(listed.keys, listed.texts, strict=True)) == {
        "a": ["a dog barks"],
        "b": ["the sound of rain and wind"],
    }
    assert list(ListedClips(clips, ()).keys) == ["a"]


def test_keep_best_keeps_order_and_share() -> None:
    assert keep_best([0.1, 0.9, 0.5, 0.7], 0.5).tolist() == [1, 3]
    assert keep_best([0.5, 0.5, 0.5], 2 / 3).tolist() == [0, 1]


def dataset(folder: str) -> None:
    flac = audio.encode_flac(np.zeros(3200, np.int16))
    outcomes = [
        shards.Outcome(key=f"k{i}", status="written", stage="write", flac=flac, meta={"text": ["a", "b"], "tag": []})
        for i in range(4)
    ]
    shards.write(folder, 0, outcomes, "hash")
    storage.publish_json(storage.join(folder, "sizes.json"), {"00000.tar": 4})


def test_overlay_replaces_captions_and_its_scores_filter(tmp_path) -> None:
    import pyarrow as pa

    dataset(str(tmp_path))
    rows = [{"key": f"k{i}", "text": ["b", "a"], "score": [i / 10, 0.0]} for i in range(4)]
    folder = overlays.folder(str(tmp_path), "r1")
    storage.publish_table(
        storage.join(folder, "00000.parquet"), pa.Table.from_pylist(rows, schema=overlays.CAPTIONS_SCHEMA)
    )
    with pytest.raises(InputError, match="no such overlay"):
        open_data([str(tmp_path)], SelectionConfig(captions="r1"))
    storage.publish_json(storage.join(folder, "overlay.json"), {})
    (clips,) = open_data([str(tmp_path)], SelectionConfig(captions="r1", keep_fraction=0.5, best_only=True))
    assert list(clips.keys) == ["k2", "k3"]
    assert list(clips.texts) == [["b"], ["b"]]
    assert len(reading.read(clips.place(0), reading.CacheConfig())) == 3200


def test_filtering_needs_scores(tmp_path) -> None:
    dataset(str(tmp_path))
    with pytest.raises(InputError, match="--keep-fraction"):
        open_data([str(tmp_path)], SelectionConfig(keep_fraction=0.5))


def test_captions_that_are_all_the_same_bring_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    clip_sets.warn_alike([["a", "b"], ["b", "a"]], "--data", "x")
    assert "--data x: all clips have the same captions" in caplog.text
    caplog.clear()
    clip_sets.warn_alike([["a"], ["b"]], "--data", "x")
    assert not caplog.text
