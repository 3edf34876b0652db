"""Loader: the same batches for any number of ranks and processes; a run goes on anywhere; what cannot be read is counted."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import audio, sources
from pipeline.errors import JobError
from pipeline.sources.clip import Clip
from train.data.clip_sets import ListedClips
from train.data.loader import Batch, Loader, LoaderConfig
from train.data.order import Order

COUNT, LENGTH = 22, 5


class Numbered:
    """Clips in files; the samples of a clip are its number."""

    def __init__(self, folder: Path, count: int = COUNT, broken: tuple[int, ...] = ()) -> None:
        clips = []
        for i in range(count):
            samples = np.arange(100 * i, 100 * i + 8, dtype=np.int16)
            data = b"not audio" if i in broken else audio.encode_flac(samples)
            (folder / f"k{i}.flac").write_bytes(data)
            captions = (f"text {i}", f"other {i}")
            clips.append(Clip(key=f"k{i}", uri=f"{folder}/k{i}.flac", source_id=f"k{i}", captions=captions))
        self.listed = ListedClips(clips, ())


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ListedClips:
    return Numbered(tmp_path_factory.mktemp("clips")).listed


def order(clips: ListedClips, batch_size: int = 4) -> Order:
    return Order(sizes=(len(clips.keys),), batch_size=batch_size, seed=3)


def run(clips: ListedClips, ranks: int, first: int, last: int, **options: int) -> list[list[str]]:
    """Return the keys of each global step, slot by slot."""
    config = LoaderConfig(**options)
    parts = [Loader(clips, order(clips), LENGTH, r, ranks, config).batches(first, last) for r in range(ranks)]
    steps = []
    for step in zip(*parts, strict=True):
        keys = [""] * 4
        for rank, batch in enumerate(step):
            keys[rank::ranks] = batch.keys
        steps.append(keys)
    return steps


def test_every_number_of_ranks_sees_the_same_steps(clips: ListedClips) -> None:
    """Three ranks hold unequal shares of four."""
    assert run(clips, 1, 0, 12) == run(clips, 2, 0, 12) == run(clips, 3, 0, 12) == run(clips, 4, 0, 12)


def test_a_run_goes_on_with_the_next_clip_on_other_ranks(clips: ListedClips) -> None:
    assert run(clips, 1, 0, 12)[7:] == run(clips, 2, 7, 12)


def batches(clips: ListedClips, **options: int) -> list[Batch]:
    return list(Loader(clips, order(clips), LENGTH, config=LoaderConfig(**options)).batches(0, 7))


def test_processes_change_nothing(clips: ListedClips) -> None:
    for local, helped in zip(batches(clips), batches(clips, processes=2), strict=True):
        assert local.keys == helped.keys and local.texts == helped.texts
        assert torch.equal(local.waveform, helped.waveform) and torch.equal(local.num_samples, helped.num_samples)


def test_rows_are_crops_of_their_clips_with_one_of_their_captions(clips: ListedClips) -> None:
    starts = set()
    for batch in batches(clips):
        for key, row, text, valid in zip(batch.keys, batch.waveform, batch.texts, batch.valid, strict=True):
            number = int(key[1:])
            start = int(row[0]) - 100 * number
            assert valid and row.tolist() == list(range(100 * number + start, 100 * number + start + LENGTH))
            assert text in (f"text {number}", f"other {number}")
            starts.add(start)
    assert starts == {0, 1, 2, 3}


def test_a_clip_that_comes_several_times_an_epoch_comes_with_other_captions_and_crops(clips: ListedClips) -> None:
    order = Order(sizes=(len(clips.keys),), batch_size=4, seed=3, weights=(8.0,))
    drawn: dict[str, set[tuple[int, str]]] = {}
    for batch in Loader(clips, order, LENGTH).batches(0, order.steps_per_epoch):
        for key, row, text in zip(batch.keys, batch.waveform, batch.texts, strict=True):
            drawn.setdefault(key, set()).add((int(row[0]), text))
    assert drawn.keys() == set(clips.keys)
    assert min(map(len, drawn.values())) > 1 and np.mean([*map(len, drawn.values())]) > 4  # of 8 that there can be


def test_what_cannot_be_read_is_skipped_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = Numbered(tmp_path, 8, broken=(3,)).listed
    loader = Loader(found, order(found, 8), LENGTH, config=LoaderConfig(max_bad_fraction=0.2))
    (batch,) = loader.batches(0, 1)
    assert [key for key, valid in zip(batch.keys, batch.valid, strict=True) if not valid] == ["k3"]
    assert batch.waveform[batch.keys.index("k3")].tolist() == [0] * LENGTH
    assert list(loader.skipped) == ["k3"] and "not_audio" in loader.skipped["k3"]
    assert "skips clip k3" in caplog.text


def test_too_much_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    found = Numbered(tmp_path, 8, broken=(1, 3, 5)).listed
    loader = Loader(found, order(found, 8), LENGTH, config=LoaderConfig(max_bad_fraction=0.3))
    with pytest.raises(JobError, match=r"3 of 8 clips .*k\d.*--loader\.max-bad-fraction"):
        list(loader.batches(0, 1))


def test_an_error_in_the_middle_leaves_no_process_behind(clips: ListedClips) -> None:
    import multiprocessing

    steps = Loader(clips, order(clips), LENGTH, config=LoaderConfig(processes=1)).batches(0, 100)
    next(steps)
    assert multiprocessing.active_children()
    steps.close()
    assert not multiprocessing.active_children()


def test_real_clips_of_a_listing_are_read_as_the_listing_says(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "a.flac").write_bytes(audio.encode_flac(np.full(64_000, 7, np.int16)))
    (tmp_path / "metadata.csv").write_text("file,caption\na.flac,a hum\n")
    listed = ListedClips(sources.read_clips(str(tmp_path)), ())
    (batch,) = Loader(listed, order(listed, 1), 100).batches(0, 1)
    assert batch.texts == ["a hum"] and batch.waveform.tolist() == [[7] * 100] and batch.num_samples.tolist() == [100]
