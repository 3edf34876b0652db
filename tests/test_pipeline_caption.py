"""Caption generation: every clip accounted for, done work kept, the same bytes after a kill of a driver on a real Ray."""

import csv
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from pipeline import audio, sources, storage
from pipeline.configs import CAPTION, IN_PROCESS
from pipeline.dataset import shards
from pipeline.dataset.clip_index import ClipIndex
from pipeline.errors import InputError, JobError
from pipeline.graph.caption_config import CaptionConfig
from pipeline.graph.engine import ActorConfig
from pipeline.sources import clip
from pipeline.stages.caption import run
from tests.support import zoo

TINY: CaptionConfig = dataclasses.replace(CAPTION["tiny"][1], actors=IN_PROCESS)


def tars(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).glob("*.tar"))}


def test_every_clip_is_written_with_its_caption_and_origin(dataset: str, caption_config: CaptionConfig) -> None:
    index = ClipIndex(dataset)
    listed = sources.read_clips(caption_config.source)
    assert index.keys == [clip.key for clip in listed]
    assert storage.read_json(storage.join(dataset, "sizes.json")) == {f"{i:05d}.tar": 8 for i in range(3)}
    meta = index.meta(5)
    assert meta["tag"] == list(listed[5].tags)
    assert meta["text"] == index.texts()[5] == [caption["text"] for caption in meta["captions"]]
    assert 1 <= len(meta["text"]) <= 2
    config_json = storage.read_json(storage.join(caption_config.captioner, "config.json"))
    assert {c["revision"] for c in meta["captions"]} == {config_json["revision"]}
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


def test_killed_driver_resumes_to_the_same_bytes(
    ray_session: None, dataset: str, caption_config: CaptionConfig, tmp_path: Path
) -> None:
    """A clip of the last shard is a pipe that nobody writes to: the job waits there until it is killed."""
    import ray

    folder = shutil.copytree(Path(caption_config.source).parent, tmp_path / "corpus")
    source = str(folder / "tagged_segments.csv")
    last = Path(sources.read_clips(source)[-1].uri)
    held_back = last.read_bytes()
    last.unlink()
    os.mkfifo(last)
    out = str(tmp_path / "out")
    command = [sys.executable, "-m", "pipeline", "caption", "tiny", "--actors.max", "1", "--out", out]
    command += ["--source", source, "--captioner", caption_config.captioner]
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    driver = subprocess.Popen(command, env=environment, start_new_session=True)
    while len(shards.committed(out)) < 2:
        assert driver.poll() is None, "the driver ended without its shards"
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    assert len(shards.committed(out)) == 2
    last.unlink()
    last.write_bytes(held_back)
    run(dataclasses.replace(caption_config, source=source, out=out, actors=ActorConfig()))
    assert tars(out) == tars(dataset)


def test_another_captioner_or_guidance_in_the_same_place_is_refused(
    dataset: str, caption_config: CaptionConfig
) -> None:
    before = tars(dataset)
    with pytest.raises(InputError, match=r"guidance was \['tags'\], now \['none'\]"):
        run(dataclasses.replace(caption_config, out=dataset, guidance=("none",)))
    assert tars(dataset) == before


def test_gpus_that_are_not_there_are_an_error_not_a_wait(
    ray_session: None, caption_config: CaptionConfig, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"--actors\.gpus 1\.0: there is no GPU here"):
        run(dataclasses.replace(caption_config, out=str(tmp_path), actors=ActorConfig(gpus=1.0)))


TAG = "Rain"


@pytest.fixture(scope="module")
def zoo_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[zoo.Case]]:
    """Every odd and broken file of the zoo, listed with a tag; a clip without tags and one with a tag nobody knows."""
    folder = tmp_path_factory.mktemp("zoo")
    found = zoo.write(folder)
    good = found[0].data
    assert good is not None
    (folder / "no-tags.wav").write_bytes(good)
    (folder / "strange-tag.wav").write_bytes(good)
    with open(folder / "metadata.csv", "w", newline="") as file:
        rows = [(case.name, TAG) for case in found]
        csv.writer(file).writerows([("file", "label"), *rows, ("no-tags.wav", ""), ("strange-tag.wav", "Quasar")])
    return folder, found


def test_the_zoo_is_ledger_rows_or_right_results(
    zoo_folder: tuple[Path, list[zoo.Case]], captioner: str, tmp_path: Path
) -> None:
    folder, found = zoo_folder
    out = str(tmp_path)
    config = dataclasses.replace(TINY, source=str(folder), captioner=captioner, out=out, max_bad_fraction=0.3)
    bad = sum(bool(case.reason) for case in found)
    assert len(found) >= 40 and bad >= 15
    with pytest.raises(
        JobError, match=rf"{len(found) + 2} clips = \d+ written \+ 3 filtered \+ {bad} failed.*--max-bad"
    ):
        run(config)
    assert not Path(out, "sizes.json").exists()
    kept = tars(out)
    run(dataclasses.replace(config, max_bad_fraction=0.5))
    assert tars(out) == kept
    index = ClipIndex(out)
    rows = index.ledger.to_pylist()
    ended = {row["key"]: (row["status"], row["reason"]) for row in rows}
    wanted = {clip.key_of(case.name): ("failed", case.reason) if case.reason else ("written", "") for case in found}
    wanted |= {"no-tags": ("filtered", "no_tags"), "strange-tag": ("filtered", "unknown_tags")}
    wanted |= {"ten-minutes": ("filtered", "silent")}
    assert ended == wanted
    assert all(row["detail"] for row in rows if row["reason"])
    lengths = {clip.key_of(case.name): case.duration_s for case in found if not case.reason}
    assert all(abs(row["duration_s"] - lengths[row["key"]]) < 0.08 for row in rows if row["status"] == "written")
    sounding = {case.name for case in found if not case.reason} - {"ten-minutes.flac"}
    assert {index.meta(i)["source_id"] for i in range(len(index))} == sounding


def test_without_guidance_a_clip_without_tags_is_captioned(
    zoo_folder: tuple[Path, list[zoo.Case]], captioner: str, tmp_path: Path
) -> None:
    """And the readers may decode for the actors: the captions are the same."""
    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("no-tags.wav", "rate192k.wav"):
        shutil.copy(zoo_folder[0] / name, folder / name)
    config = dataclasses.replace(TINY, source=str(folder), captioner=captioner, guidance=("none",))
    made = []
    for decode in ("actor", "reader"):
        run(dataclasses.replace(config, out=str(tmp_path / decode), decode=decode))
        index = ClipIndex(str(tmp_path / decode))
        assert index.keys == ["no-tags", "rate192k"]
        assert index.meta(0)["captions"][0]["tags_given"] is False
        made.append(tars(str(tmp_path / decode)))
    assert made[0] == made[1]


def test_two_drivers_at_once_write_one_dataset(dataset: str, caption_config: CaptionConfig, tmp_path: Path) -> None:
    out = str(tmp_path)
    command = [sys.executable, "-m", "pipeline", "caption", "tiny", "--actors.max", "0", "--out", out]
    command += ["--source", caption_config.source, "--captioner", caption_config.captioner]
    drivers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    messages = [driver.communicate(timeout=400)[1] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], messages
    assert tars(out) == tars(dataset)
    assert not Path(out, "attempts").exists()


def test_the_counts_are_exported_for_prometheus(
    ray_session: None, caption_config: CaptionConfig, tmp_path: Path
) -> None:
    """The counts of a run, as Ray's own endpoint serves them."""
    import ray

    run(dataclasses.replace(caption_config, out=str(tmp_path), actors=ActorConfig()))
    address = ray.nodes()[0]
    endpoint = f"http://{address['NodeManagerAddress']}:{address['MetricsExportPort']}/metrics"
    names = ("blat_clips_total{", "blat_audio_seconds_total", "blat_clips_per_second", "blat_model_busy_ratio")
    deadline = time.monotonic() + 60
    text = ""
    while not all(f"ray_{name}" in text for name in names) and time.monotonic() < deadline:
        with suppress(OSError):
            text = urllib.request.urlopen(endpoint, timeout=5).read().decode()
        time.sleep(1)
    for name in names:  # Ray reports them one after the other
        assert f"ray_{name}" in text, f"{name} is not at Ray's metrics endpoint"


def test_a_gpu_that_is_none_is_told() -> None:
    """Ray believes a node's word; torch does not."""
    import torch

    assert ActorConfig(gpus=1.0, rehearse=True).torch_device().type == "cpu"
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(JobError, match=r"--actors.gpus 1: .* --actors.rehearse"):
        ActorConfig(gpus=1.0).torch_device()
