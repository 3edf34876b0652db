"""Caption generation on a real Ray: every clip accounted for, done work kept, the same bytes after a kill."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline import audio, audioset, shards, sources, storage
from pipeline.caption import CaptionConfig, run
from pipeline.cli import InputError, JobError
from pipeline.configs import CAPTION
from pipeline.engine import ActorConfig
from pipeline.synth import SPLITS

pytestmark = pytest.mark.usefixtures("ray_session")
TINY: CaptionConfig = CAPTION["tiny"][1]


def tars(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).glob("*.tar"))}


def test_every_clip_is_written_with_its_caption_and_origin(dataset: str, caption_config: CaptionConfig) -> None:
    index = shards.Index(dataset)
    listed = sources.read_clips(caption_config.source)
    assert index.keys == [clip.key for clip in listed]
    assert storage.read_json(storage.join(dataset, "sizes.json")) == {f"{i:05d}.tar": 8 for i in range(3)}
    meta = index.meta(5)
    assert meta["tag"] == list(listed[5].tags)
    assert meta["text"] == index.texts()[5] == [caption["text"] for caption in meta["captions"]]
    assert 1 <= len(meta["text"]) <= 2
    about = storage.read_json(storage.join(caption_config.captioner, "config.json"))
    assert {c["revision"] for c in meta["captions"]} == {about["revision"]}
    assert meta["captions"][0]["tags_given"] is True
    assert np.array_equal(audio.decode(index.flac(5)), audio.decode(storage.read(listed[5].uri)))
    assert "24 written" in storage.read(storage.join(dataset, "README.md")).decode()


def test_lost_shards_are_redone_to_the_same_bytes_and_others_left_alone(
    dataset: str, caption_config: CaptionConfig, tmp_path
) -> None:
    out = str(tmp_path)
    config = dataclasses.replace(caption_config, out=out)
    run(config)
    kept = Path(out, "00000.tar").stat().st_mtime_ns
    os.remove(Path(out, "00001_stats.json"))
    Path(out, "00001.tar").write_bytes(b"half written")
    run(config)
    assert tars(out) == tars(dataset)
    assert Path(out, "00000.tar").stat().st_mtime_ns == kept


def test_killed_driver_resumes_to_the_same_bytes(dataset: str, caption_config: CaptionConfig, tmp_path) -> None:
    import ray

    out = str(tmp_path)
    command = [sys.executable, "-m", "pipeline", "caption", "tiny", "--out", out]
    command += ["--source", caption_config.source, "--captioner", caption_config.captioner]
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    driver = subprocess.Popen(command, env=environment, start_new_session=True)
    while not shards.committed(out):
        assert driver.poll() is None or shards.committed(out), "the driver ended without a shard"
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    before = shards.committed(out)
    assert 0 < len(before) < 3
    run(dataclasses.replace(caption_config, out=out))
    assert tars(out) == tars(dataset)


def test_another_captioner_or_guidance_in_the_same_place_is_refused(
    dataset: str, caption_config: CaptionConfig
) -> None:
    before = tars(dataset)
    with pytest.raises(InputError, match=r"guidance was \['tags'\], now \['none'\]"):
        run(dataclasses.replace(caption_config, out=dataset, guidance=("none",)))
    assert tars(dataset) == before


def test_gpus_that_are_not_there_are_an_error_not_a_wait(caption_config: CaptionConfig, tmp_path) -> None:
    with pytest.raises(InputError, match=r"--actors\.gpus 1\.0: there is no GPU here"):
        run(dataclasses.replace(caption_config, out=str(tmp_path), actors=ActorConfig(gpus=1.0)))


@pytest.fixture(scope="module")
def bad_source(corpus: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Ten good clips and one of each kind of bad input, in AudioSet layout."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "audio").mkdir()
    storage.publish(str(folder / audioset.LABELS_FILE), storage.read(storage.join(corpus, audioset.LABELS_FILE)))
    good = sources.read_clips(storage.join(corpus, f"{SPLITS[1]}_segments.csv"))[:10]
    flac = storage.read(good[0].uri)
    files = {f"Ygood{i:07d}.flac": storage.read(clip.uri) for i, clip in enumerate(good)}
    files |= {
        "Yempty000000.flac": b"",
        "Ytext0000000.wav": b"not audio at all\n" * 9,
        "Ytrunc000000.flac": flac[: len(flac) // 2],
    }
    files |= {"Ynotags00000.flac": flac}
    for name, data in files.items():
        (folder / "audio" / name).write_bytes(data)
    soundfile.write(folder / "audio" / "Yzero0000000.wav", np.zeros(0, np.float32), 32_000)
    ids = [name[1:].split(".")[0] for name in files] + ["zero0000000", "gone0000000"]
    mid = good[0].mids[:1]
    rows = [audioset.Segment(ytid, 0.0, 2.0, () if ytid == "notags00000" else mid) for ytid in ids]
    storage.publish(str(folder / "train.csv"), audioset.write_segments(rows).encode())
    return str(folder / "train.csv")


REASONS = {
    "Yempty000000_0_2000": ("failed", "empty"),
    "Ytext0000000_0_2000": ("failed", "not_audio"),
    "Ytrunc000000_0_2000": ("failed", "truncated"),
    "Yzero0000000_0_2000": ("failed", "zero_length"),
    "Ygone0000000_0_2000": ("failed", "missing"),
    "Ynotags00000_0_2000": ("filtered", "no_tags"),
}


def test_bad_clips_are_ledger_rows_and_too_many_fail_the_job(bad_source: str, captioner: str, tmp_path) -> None:
    out = str(tmp_path)
    config = dataclasses.replace(TINY, source=bad_source, captioner=captioner, out=out, max_bad_fraction=0.3)
    with pytest.raises(JobError, match=r"16 clips = 10 written \+ 1 filtered \+ 5 failed.*--max-bad-fraction"):
        run(config)
    assert not Path(out, "sizes.json").exists()
    kept = tars(out)
    run(dataclasses.replace(config, max_bad_fraction=0.4))
    assert tars(out) == kept
    ledger = {row["key"]: row for row in shards.Index(out).ledger.to_pylist()}
    assert len(ledger) == 16
    assert {key: (row["status"], row["reason"]) for key, row in ledger.items() if row["reason"]} == REASONS
    assert all(row["detail"] for row in ledger.values() if row["reason"])
    assert sum(row["status"] == "written" for row in ledger.values()) == 10


def test_without_guidance_a_clip_without_tags_is_captioned(bad_source: str, captioner: str, tmp_path) -> None:
    config = dataclasses.replace(TINY, source=bad_source, captioner=captioner, out=str(tmp_path), max_bad_fraction=1.0)
    run(dataclasses.replace(config, guidance=("none",)))
    index = shards.Index(str(tmp_path))
    assert "Ynotags00000_0_2000" in index.keys
    assert index.meta(index.keys.index("Ynotags00000_0_2000"))["captions"][0]["tags_given"] is False
