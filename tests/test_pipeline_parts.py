"""A part of a file: the same samples as decoding the whole, cutting it at its own rate and resampling the cut."""

import io

import numpy as np
import pytest
import soundfile
import soxr

from pipeline import audio
from pipeline.audio import decoding, ffmpeg
from tests.support import zoo

SECONDS = 2.5 * decoding.BLOCK_S
EDGES_S = [(0.0, 10.0), (12.34567, 45.6), (29.999, 30.001), (31.0, 62.5), (70.0, 0.0), (60.1, SECONDS + 0.05)]


def at_own_rate(file: soundfile.SoundFile) -> np.ndarray:
    """Return all samples as float32 (T,)."""
    blocks = []
    while len(block := file.read(2**18, "float32", always_2d=True)):
        blocks.append(block.mean(axis=1))
    return np.concatenate(blocks)


def cut(samples: np.ndarray, rate_hz: int, start_s: float, end_s: float) -> np.ndarray:
    """Return the part as int16 (T,) at the rate of shards."""
    part = samples[round(start_s * rate_hz) : round(end_s * rate_hz) if end_s else None]
    return audio.to_int16(part if rate_hz == 32_000 else soxr.resample(part, rate_hz, 32_000, quality="HQ"))


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "FLAC", "MP3", "OGG"])
@pytest.mark.parametrize(("rate_hz", "channels"), [(32_000, 1), (44_100, 2)])
def test_a_part_is_the_cut_of_the_whole(kind: str, rate_hz: int, channels: int) -> None:
    data = zoo.encoded(zoo.tone(SECONDS, rate_hz, channels) * np.linspace(1, 0.5, channels), rate_hz, kind)
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        samples = file.read(dtype="float32", always_2d=True).mean(axis=1)
    for start_s, end_s in EDGES_S:
        part = audio.decode(data, start_s=start_s, end_s=end_s)
        assert np.array_equal(part, cut(samples, rate_hz, start_s, end_s)), (start_s, end_s)
        alone = audio.decode_part(io.BytesIO(data), start_s, end_s)
        assert alone is None if kind in ("MP3", "OGG") else np.array_equal(alone, part), (start_s, end_s)


def test_a_part_of_what_states_no_length() -> None:
    """FLAC written to a pipe, which cannot be sought in."""
    data = bytearray(zoo.encoded(zoo.tone(3.0), kind="FLAC"))
    whole = audio.decode(bytes(data))
    data[21:26] = bytes([data[21] & 0xF0, 0, 0, 0, 0])  # the number of samples
    assert np.array_equal(audio.decode(bytes(data), start_s=1.25, end_s=2.5), whole[40_000:80_000])
    assert np.array_equal(audio.decode(bytes(data), start_s=1.25), whole[40_000:])
    with pytest.raises(audio.AudioError, match=r"out_of_range: the part is 1 s to 3.2 s, the file has 3.00 s"):
        audio.decode(bytes(data), start_s=1.0, end_s=3.2)


@pytest.fixture(scope="module")
def eleven_minutes() -> bytes:
    """AAC, which ffmpeg decodes."""
    sine = ("-f", "lavfi", "-i", "sine=frequency=100:sample_rate=8000:duration=660")
    return zoo.transcoded(".m4a", "-b:a", "16k", source=sine)


def test_a_part_that_ffmpeg_decodes(eleven_minutes: bytes) -> None:
    if eleven_minutes == zoo.FTYP:
        pytest.skip("no ffmpeg")
    with ffmpeg.decoded(eleven_minutes, 60.0) as file:
        samples, rate_hz = at_own_rate(file), file.samplerate
    for start_s, end_s in [(0.0, 1.0), (30.2, 31.4), (629.0, 640.0), (655.0, 0.0)]:
        part = audio.decode(eleven_minutes, start_s=start_s, end_s=end_s)
        assert np.array_equal(part, cut(samples, rate_hz, start_s, end_s)), (start_s, end_s)
    with pytest.raises(audio.AudioError, match="out_of_range"):
        audio.decode(eleven_minutes, start_s=650.0, end_s=661.0)
    with pytest.raises(audio.AudioError, match="too_long"):
        audio.decode(eleven_minutes, start_s=10.0)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3"])
@pytest.mark.parametrize(
    ("start_s", "end_s", "reason"),
    [
        (0.0, 3.09, ""),
        (2.9, 3.09, ""),
        (0.0, 3.2, "out_of_range"),
        (3.2, 0.0, "out_of_range"),
        (3.2, 3.25, "out_of_range"),
        (3.2, 5.0, "out_of_range"),
        (1e9, 2e9, "out_of_range"),
        (2.0, 1.0, "out_of_range"),
        (1.0, 1.0, "out_of_range"),
        (-1.0, 1.0, "out_of_range"),
        (float("nan"), 1.0, "out_of_range"),
        (0.0, float("inf"), "out_of_range"),
        (1.0, 1.000001, "zero_length"),
        (0.0, 0.000001, "zero_length"),
    ],
)
def test_what_is_no_part_of_three_seconds_has_a_reason(kind: str, start_s: float, end_s: float, reason: str) -> None:
    data = zoo.encoded(zoo.tone(3.0), kind=kind)
    if reason:
        with pytest.raises(audio.AudioError, match=f"^{reason}: "):
            audio.decode(data, start_s=start_s, end_s=end_s)
    else:
        assert len(audio.decode(data, start_s=start_s, end_s=end_s)) == round((3.0 - start_s) * 32_000)


def test_the_longest_duration_is_that_of_the_part() -> None:
    data = zoo.encoded(np.zeros((1_300 * 1_000, 1), np.float32), 1_000, "FLAC")
    assert len(audio.decode(data, start_s=700.0)) == 600 * 32_000
    assert len(audio.decode(data, start_s=650.0, end_s=660.0)) == 10 * 32_000
    for start_s, end_s in [(0.0, 0.0), (600.0, 0.0), (100.0, 701.0)]:
        with pytest.raises(audio.AudioError, match="too_long"):
            audio.decode(data, start_s=start_s, end_s=end_s)


def test_what_is_cut_within_the_part_is_truncated() -> None:
    """And not out of range: its header states that the part was there."""
    data = zoo.encoded(zoo.tone(3.0), kind="FLAC")
    with pytest.raises(audio.AudioError, match="truncated"):
        audio.decode(data[: len(data) // 2], start_s=1.0, end_s=2.0)
    assert len(audio.decode(data[: len(data) // 2], start_s=0.1, end_s=1.0)) == round(0.9 * 32_000)
