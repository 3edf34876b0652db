"""Order: one global sequence, whatever the number of ranks; a run can stop and go on anywhere."""

import numpy as np
import pytest

from pipeline import audio, shards, storage
from pipeline.cli import InputError, JobError
from pipeline.clip import Clip
from pipeline.selection import SelectionConfig, keep_best
from train.data import ListedClips, Loader, Order, open_shards


class Counting:
    """Clips whose samples tell their own index."""

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        self.keys = [f"k{i}" for i in range(count)]
        self.texts = [[f"text {i}", f"other {i}"] for i in range(count)]
        self.tags: list[list[str]] = [[] for _ in range(count)]
        self.broken = broken

    def samples(self, index: int) -> np.ndarray:
        if index in self.broken:
            raise audio.AudioError("empty", "0 bytes")
        return np.arange(index, index + 8, dtype=np.int16)


def run(ranks: int, first: int, last: int) -> list[list[str]]:
    """Return the keys of each global step, ranks interleaved as they were dealt."""
    order = Order(num_clips=22, batch_size=4, seed=3)
    parts = [Loader(Counting(22), order, 5, rank, ranks).batches(first, last) for rank in range(ranks)]
    return [
        [key for keys in zip(*(batch.keys for batch in step), strict=True) for key in keys]
        for step in zip(*parts, strict=True)
    ]


def test_every_number_of_ranks_sees_the_same_steps() -> None:
    assert run(1, 0, 12) == run(2, 0, 12) == run(4, 0, 12)


def test_resume_continues_the_same_sequence() -> None:
    assert run(1, 0, 12)[7:] == run(2, 7, 12)


def test_an_epoch_repeats_no_clip_and_epochs_differ() -> None:
    steps = run(1, 0, 10)
    first, second = ([key for step in steps[a:b] for key in step] for a, b in ((0, 5), (5, 10)))
    assert len(set(first)) == len(first) == 20
    assert first != second


def test_crops_and_caption_choices_do_not_depend_on_ranks() -> None:
    order = Order(num_clips=8, batch_size=4, seed=0)
    alone = next(Loader(Counting(8), order, 5, 0, 1).batches(0, 1))
    second = next(Loader(Counting(8), order, 5, 1, 2).batches(0, 1))
    assert alone.texts[1::2] == second.texts
    assert alone.waveform[1::2].tolist() == second.waveform.tolist()
    assert alone.waveform.shape == (4, 5)


def test_a_clip_that_breaks_during_the_run_stops_it_by_name() -> None:
    loader = Loader(Counting(8, broken=(3,)), Order(num_clips=8, batch_size=8, seed=0), 5, 0, 1)
    with pytest.raises(JobError, match=r"k3 .* empty"):
        next(loader.batches(0, 1))


def test_broken_files_are_found_and_left_out(tmp_path) -> None:
    (tmp_path / "good.flac").write_bytes(audio.encode_flac(np.zeros(3200, np.int16)))
    (tmp_path / "bad.flac").write_bytes(b"")
    clips = [
        Clip(key=name, uri=f"{tmp_path}/{name}.flac", source_id=name, captions=("x",)) for name in ("good", "bad", "no")
    ]
    broken = ListedClips(clips, ()).find_broken()
    assert broken == {"bad": "empty", "no": "missing"}
    assert ListedClips(clips, (), broken).keys == ["good"]


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
    assert ListedClips(clips, ()).keys == ["a"]


def test_keep_best_keeps_order_and_share() -> None:
    assert keep_best([0.1, 0.9, 0.5, 0.7], 0.5) == [1, 3]
    assert keep_best([0.5, 0.5, 0.5], 2 / 3) == [0, 1]


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
    folder = shards.overlay_folder(str(tmp_path), "r1")
    storage.publish_table(storage.join(folder, "00000.parquet"), pa.Table.from_pylist(rows, schema=shards.OVERLAY))
    with pytest.raises(InputError, match="no such overlay"):
        open_shards(str(tmp_path), SelectionConfig(captions="r1"))
    storage.publish_json(storage.join(folder, "overlay.json"), {})
    clips = open_shards(str(tmp_path), SelectionConfig(captions="r1", keep_fraction=0.5, best_only=True))
    assert clips.keys == ["k2", "k3"]
    assert clips.texts == [["b"], ["b"]]
    assert len(clips.samples(0)) == 3200


def test_filtering_needs_scores(tmp_path) -> None:
    dataset(str(tmp_path))
    with pytest.raises(InputError, match="--keep-fraction"):
        open_shards(str(tmp_path), SelectionConfig(keep_fraction=0.5))
