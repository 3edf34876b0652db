"""Tars that others wrote: indexed once, then read by training like our own shards."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipeline import audio
from pipeline.dataset import external_index
from pipeline.dataset.selection import SelectionConfig
from pipeline.errors import InputError, JobError
from pipeline.stages import index
from pipeline.stages.index import IndexConfig
from train.data import reading
from train.data.datasets import check_present, open_data


def write_tar(path: Path, samples: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in samples.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Two tars as img2dataset's kin writes them: other names, texts in .json or .txt, one sample without audio."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    for shard in range(2):
        samples = {}
        for i in range(5):
            number = 5 * shard + i
            samples[f"{number:09d}.flac"] = audio.encode_flac(np.full(3200, number, np.int16))
            if i % 2:
                samples[f"{number:09d}.txt"] = f"sound {number}".encode()
            else:
                samples[f"{number:09d}.json"] = json.dumps({"caption": f"sound {number}", "tags": ["Dog"]}).encode()
        write_tar(folder / f"train-{shard:06d}.tar", samples)
    (folder / "sizes.json").write_text('{"train-000000.tar": 5, "train-000001.tar": 5}')
    return folder


def test_an_index_leads_to_every_clip_and_its_caption(foreign: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "index")
    index.run(IndexConfig(source=f"{foreign}/train-{{000000..000001}}.tar", out=out))
    (clips,) = open_data([out], SelectionConfig())
    assert list(clips.texts) == [[f"sound {i}"] for i in range(10)]
    assert clips.tags[0] == ["Dog"]
    for i in range(10):
        assert set(reading.read(clips.place(i), reading.CacheConfig()).tolist()) == {i}
    check_present([clips])
    index.run(IndexConfig(source=f"{foreign}/train-{{000000..000001}}.tar", out=out))  # complete: nothing to do


def test_without_an_index_their_sizes_file_leads_to_the_command(foreign: Path) -> None:
    with pytest.raises(InputError, match=r"--data .*with `python -m pipeline index`"):
        open_data([str(foreign)], SelectionConfig())


def test_samples_without_caption_or_audio_are_counted_and_too_many_refused(foreign: Path, tmp_path: Path) -> None:
    flac = audio.encode_flac(np.zeros(3200, np.int16))
    write_tar(foreign / "train-000002.tar", {"a.flac": flac, "b.txt": b"no audio"})
    config = IndexConfig(source=str(foreign), out=str(tmp_path / "index"))
    with pytest.raises(JobError, match=r"2 of 12 samples cannot be used.*--max-bad-fraction"):
        index.run(config)
    index.run(IndexConfig(source=str(foreign), out=config.out, max_bad_fraction=0.2))
    info = json.loads((tmp_path / "index" / "index.json").read_text())
    assert info["clips"] == 10 and info["left_out"] == {"no caption": 1, "missing": 1}
    assert len(external_index.read(config.out)) == 10


def test_a_tar_that_is_gone_or_short_is_an_error_before_the_start(foreign: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "index")
    index.run(IndexConfig(source=str(foreign), out=out))
    clips = open_data([out], SelectionConfig())
    (foreign / "train-000000.tar").unlink()
    whole = (foreign / "train-000001.tar").read_bytes()
    (foreign / "train-000001.tar").write_bytes(whole[:700])
    with pytest.raises(InputError, match=r"train-000000.tar has 0 bytes .*2 of 2 tars are missing or cut short"):
        check_present(clips)


def test_what_is_no_tar_needs_no_index(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "a.flac").write_bytes(audio.encode_flac(np.zeros(3200, np.int16)))
    (tmp_path / "metadata.csv").write_text("file,caption\na.flac,x\n")
    with pytest.raises(InputError, match=r"--source .*other listings need no index"):
        index.run(IndexConfig(source=str(tmp_path), out=str(tmp_path / "index")))
