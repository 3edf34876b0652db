"""Silence, short clips and copies are left out with a reason; a job that began before there was a filter has none."""

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline import audio, sources, storage
from pipeline.audio import fingerprint
from pipeline.configs import CAPTION, IN_PROCESS
from pipeline.dataset.clip_index import ClipIndex
from pipeline.errors import InputError
from pipeline.graph.caption_config import CaptionConfig
from pipeline.planning.plan import read_plan
from pipeline.quality import deduplication
from pipeline.quality.audio_filter import OFF, AudioFilterConfig
from pipeline.stages import caption, retry, verify
from pipeline.stages.retry import RetryConfig
from pipeline.stages.verify import VerifyConfig
from tests.support import zoo


@pytest.mark.parametrize(
    ("peak", "config", "reason"),
    [
        (0, AudioFilterConfig(), "silent"),
        (10, AudioFilterConfig(), "silent"),  # -70.3 dBFS
        (11, AudioFilterConfig(), ""),  # -69.5 dBFS
        (-11, AudioFilterConfig(), ""),
        (-32_768, AudioFilterConfig(silence_dbfs=-0.1), ""),
        (0, OFF, ""),
        (11, AudioFilterConfig(min_s=1.0), ""),
        (11, AudioFilterConfig(min_s=1.001), "too_short"),
        (0, AudioFilterConfig(min_s=1.001), "too_short"),
    ],
)
def test_the_thresholds(peak: int, config: AudioFilterConfig, reason: str) -> None:
    samples = np.zeros(audio.SAMPLE_RATE_HZ, np.int16)
    samples[12_345] = peak
    rejected = config.reject(samples)
    assert (rejected[0] if rejected else "") == reason


def test_one_loud_sample_is_sound() -> None:
    assert AudioFilterConfig().reject(np.array([32_767], np.int16)) is None


@pytest.mark.parametrize("config", [AudioFilterConfig(silence_dbfs=1.0), AudioFilterConfig(min_s=-1.0)])
def test_thresholds_that_cannot_be_are_refused(config: AudioFilterConfig) -> None:
    with pytest.raises(InputError, match="--audio-filter"):
        config.check()


def noises(count: int, seconds: float = 4.0) -> list[np.ndarray]:
    """Return recordings that have nothing in common, float32."""
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, int(seconds * audio.SAMPLE_RATE_HZ)).astype(np.float32) for _ in range(count)]


def words(samples: np.ndarray) -> np.ndarray:
    return fingerprint.compute(audio.to_int16(samples), audio.SAMPLE_RATE_HZ)


def test_copies_are_found_whatever_was_done_to_them() -> None:
    one, two, three = noises(3)
    mp3 = audio.decode(zoo.encoded(one[:, None], kind="MP3")) / audio.INT16_FULL_SCALE
    clips = [one, two, one, three, mp3, one * 0.3, one[3_200:], one[: len(one) // 2], np.tile(two, 2)]
    found = deduplication.find([str(i) for i in range(len(clips))], [words(clip) for clip in clips])
    assert {clip: copy.kept for clip, copy in found.items()} == {2: 0, 4: 0, 5: 0, 6: 0}, (
        "halves and more are no copies"
    )
    assert found[2].bit_error_rate == 0


def test_two_tries_at_one_clip_and_silence_are_no_copies() -> None:
    (one,) = noises(1)
    nothing = np.zeros_like(one)
    assert deduplication.find(["a", "a", "b", "c"], [words(one), words(one), words(nothing), words(nothing)]) == {}
    again = deduplication.find(["a", "b", "a"], [words(one)] * 3)
    assert {clip: copy.kept for clip, copy in again.items()} == {1: 0}, "not that of its own copy either"
    assert deduplication.find([], []) == {}
    assert deduplication.find(["a"], [np.zeros(0, np.uint32)]) == {}


def test_the_copies_of_many_clips_in_any_order_are_those_of_the_earliest() -> None:
    rng = np.random.default_rng(1)
    recordings = [rng.integers(1, 2**32, 100, dtype=np.uint32) for _ in range(200)]
    order = rng.integers(len(recordings), size=1_000).tolist()
    flipped = [recordings[i] ^ (np.uint32(1) << rng.integers(32, size=100, dtype=np.uint32)) for i in order]
    mixed = [np.where(rng.random(100) < 0.5, one, recordings[i]) for one, i in zip(flipped, order, strict=True)]
    found = deduplication.find([str(i) for i in range(len(order))], mixed)
    first = {recording: order.index(recording) for recording in set(order)}
    wanted = {clip: first[recording] for clip, recording in enumerate(order) if first[recording] != clip}
    assert {clip: copy.kept for clip, copy in found.items()} == wanted


@pytest.fixture
def source(caption_config: CaptionConfig, tmp_path: Path) -> Path:
    """Two recordings, a copy of each, silence, and a tenth of a second."""
    folder = tmp_path / "source"
    (folder / "audio").mkdir(parents=True)
    one, two = (
        audio.decode(storage.read(clip.uri)) / audio.INT16_FULL_SCALE
        for clip in sources.read_clips(caption_config.source)[:2]
    )
    tag = sources.read_clips(caption_config.source)[0].tags[0]
    sounds = {
        "silence": np.zeros(32_000),
        "short": two[:3_200],
        "one": one,
        "untagged": two,
        "copy": one * 0.5,
        "two": two,
    }
    for name, samples in sounds.items():
        soundfile.write(folder / "audio" / f"{name}.wav", samples, audio.SAMPLE_RATE_HZ)
    lines = [f"{name}.wav,{'' if name == 'untagged' else tag}" for name in [*sounds, "late"]]
    (folder / "metadata.csv").write_text("\n".join(["file,labels", *lines]) + "\n")
    return folder


def outcomes(out: str) -> dict[str, tuple[str, str]]:
    return {row["key"]: (row["status"], row["reason"]) for row in ClipIndex(out).ledger.to_pylist()}


def test_a_job_leaves_them_out_and_a_retry_does_too(source: Path, captioner: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    config = dataclasses.replace(
        CAPTION["tiny"][1],
        source=str(source),
        captioner=captioner,
        out=out,
        clips_per_shard=3,
        max_bad_fraction=0.5,
        actors=IN_PROCESS,
        audio_filter=AudioFilterConfig(min_s=0.2, drop_copies=True),
    )
    caption.run(config)
    wanted = {
        "silence": ("filtered", "silent"),
        "short": ("filtered", "too_short"),
        "one": ("written", ""),
        "untagged": ("filtered", "no_tags"),
        "copy": ("filtered", "audio_copy"),
        "two": ("written", ""),  # the recording of a clip that was not captioned is no copy
        "late": ("failed", "missing"),
    }
    assert outcomes(out) == wanted
    details = {row["key"]: row["detail"] for row in ClipIndex(out).ledger.to_pylist()}
    assert details["copy"].startswith("the recording of one, ")
    card = storage.read_text(storage.join(out, "README.md"))
    assert "| audio_copy | 1 |" in card and "no sample above -70 dBFS; too short: below 0.2 s; copies" in card
    before = {path.name: path.read_bytes() for path in Path(out).glob("0*")}
    for name in ("00000.tar", "00000.parquet", "00000_stats.json", "sizes.json"):
        Path(out, name).unlink()
    caption.run(config)
    assert {path.name: path.read_bytes() for path in Path(out).glob("0*")} == before
    (source / "audio" / "late.wav").write_bytes((source / "audio" / "one.wav").read_bytes())
    retry.run(RetryConfig(actors=IN_PROCESS, data=out, reason=("missing",)))
    assert outcomes(out) == wanted | {"late": ("filtered", "audio_copy")}
    verify.run(VerifyConfig(data=out, in_process=True))
    with pytest.raises(InputError, match="audio_filter was"):
        caption.run(dataclasses.replace(config, audio_filter=AudioFilterConfig(min_s=0.3, drop_copies=True)))


def test_a_job_from_before_the_filter_goes_on_without(
    source: Path, captioner: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = str(tmp_path / "out")
    tiny = dataclasses.replace(
        CAPTION["tiny"][1],
        source=str(source),
        captioner=captioner,
        out=out,
        clips_per_shard=3,
        max_bad_fraction=0.5,
        actors=IN_PROCESS,
    )
    caption.run(dataclasses.replace(tiny, audio_filter=OFF))
    made = {path.name: path.read_bytes() for path in Path(out).glob("0*")}
    assert outcomes(out)["silence"] == ("written", "")
    marker = storage.join(out, "run.json")
    began = {name: value for name, value in storage.read_json(marker).items() if name != "audio_filter"}
    storage.publish_json(marker, began)
    for name in ("00000.tar", "00000.parquet", "00000_stats.json", "sizes.json"):
        Path(out, name).unlink()
    with pytest.raises(InputError, match=r"--audio-filter .*this job began before"):
        caption.run(dataclasses.replace(tiny, audio_filter=AudioFilterConfig(min_s=1.0)))
    with caplog.at_level(logging.INFO):
        caption.run(tiny)
    assert {path.name: path.read_bytes() for path in Path(out).glob("0*")} == made
    assert storage.read_json(marker) == began and "goes on without" in caplog.text
    planned = read_plan(out)
    assert planned is not None
    (source / "audio" / "late.wav").write_bytes((source / "audio" / "silence.wav").read_bytes())
    retry.run(RetryConfig(actors=IN_PROCESS, data=out, reason=("missing",)))
    assert outcomes(out)["late"] == ("written", "")
