"""Decoding: right samples for odd formats, a reason for every bad input."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline import audio, ffmpeg
from tests import zoo


def encoded(samples: np.ndarray, rate_hz: int = 32_000, **options: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, **({"format": "WAV"} | options))
    return buffer.getvalue()


def tone(seconds: float = 0.5, rate_hz: int = 32_000) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def test_flac_round_trip_is_exact_and_reproducible() -> None:
    samples = audio.to_int16(tone())
    data = audio.encode_flac(samples)
    assert np.array_equal(audio.decode(data), samples)
    assert audio.encode_flac(samples) == data


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled(rate_hz: int) -> None:
    samples = audio.decode(encoded(tone(rate_hz=rate_hz), rate_hz))
    assert abs(len(samples) - 16_000) <= 1
    expected = audio.to_int16(tone())[2000:-2000].astype(float)
    got = samples[2000 : 2000 + len(expected)].astype(float)
    assert np.corrcoef(expected, got)[0, 1] > 0.999


def test_channels_are_averaged() -> None:
    left = tone()
    samples = audio.decode(encoded(np.stack([left, np.zeros_like(left)], axis=1), subtype="FLOAT"))
    assert np.allclose(samples, audio.to_int16(left / 2), atol=1)


def test_nan_and_loud_samples_are_tamed() -> None:
    assert audio.to_int16(np.array([np.nan, 2.0, -2.0, 0.0])).tolist() == [0, 32_767, -32_768, 0]


def test_huge_stated_length_is_refused_before_allocation() -> None:
    data = bytearray(audio.encode_flac(np.zeros(3200, np.int16)))
    total = 32_000 * 86_400  # a day; the 36-bit sample count ends at byte 26 of the stream
    data[21] = (data[21] & 0xF0) | (total >> 32)
    data[22:26] = (total & 0xFFFFFFFF).to_bytes(4, "big")
    with pytest.raises(audio.AudioError) as caught:
        audio.decode(bytes(data))
    assert caught.value.reason == "too_long"


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("empty", b""),
        ("not_audio", b"this is a text file named .wav\n" * 50),
        ("truncated", audio.encode_flac(audio.to_int16(tone(2.0)))[:4000]),
        ("zero_length", encoded(np.zeros(0, np.float32))),
    ],
)
def test_bad_input_has_a_reason(reason: str, data: bytes) -> None:
    with pytest.raises(audio.AudioError) as caught:
        audio.decode(data)
    assert caught.value.reason == reason
    assert caught.value.reason in audio.REASONS


def test_fit_cuts_and_pads() -> None:
    assert audio.fit(np.arange(5), 3).tolist() == [0, 1, 2]
    assert audio.fit(np.arange(2), 4).tolist() == [0, 1, 0, 0]


def test_real_odd_formats_decode(blat_data: Path) -> None:
    files = sorted((blat_data / "odd_formats" / "audio").iterdir())
    assert len(files) == 15
    for file in files:
        with soundfile.SoundFile(file) as source:
            seconds = source.frames / source.samplerate
        samples = audio.decode(file.read_bytes())
        assert samples.dtype == np.int16
        assert abs(len(samples) / 32_000 - seconds) < 0.05, file.name  # MPEG lengths are whole frames


ZOO = zoo.cases()


@pytest.mark.parametrize("case", [c for c in ZOO if c.data not in (None, b"/")], ids=lambda case: case.name)
def test_the_zoo(case: zoo.Case) -> None:
    assert case.data is not None
    if case.reason:
        with pytest.raises(audio.AudioError) as caught:
            audio.decode(case.data)
        assert caught.value.reason == case.reason and caught.value.detail
    else:
        samples = audio.decode(case.data)
        assert abs(len(samples) / audio.SAMPLE_RATE_HZ - case.duration_s) < 0.08  # codecs pad by a frame or two
        loud = np.sqrt(np.mean((samples / audio.INT16_FULL_SCALE) ** 2))
        assert 0.05 < loud < 0.5 or case.duration_s != 1.0, loud


def test_one_number_that_is_none_does_not_spread() -> None:
    """A NaN in one channel of a file that is resampled leaves the rest of the clip as it is."""
    clean = zoo.tone(1.0, 44_100, channels=2)
    odd = clean.copy()
    odd[22_050, 0] = np.nan
    want, got = (audio.decode(zoo.encoded(x, 44_100, subtype="FLOAT")).astype(int) for x in (clean, odd))
    far = np.r_[0:15_000, 17_000:32_000]
    assert np.abs(want - got)[far].max() <= 1


def test_blocks_equal_the_whole() -> None:
    long = zoo.tone(2.5 * audio.BLOCK_S, 8_000, channels=2)
    whole = soundfile.read(io.BytesIO(zoo.encoded(long, 8_000)), dtype="float32")[0].mean(axis=1)
    assert np.array_equal(audio.decode(zoo.encoded(long, 8_000), 8_000), audio.to_int16(whole))


def test_a_header_that_claims_a_day_allocates_nothing() -> None:
    """In a process that may take 300 MiB more than it has: a day of samples would be 5 GiB."""
    program = """
import resource, sys
from pipeline import audio, ffmpeg
from tests import zoo
from tests import zoo
data = {case.name: case.data for case in zoo.cases()}
pages = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (pages + 300 * 2**20,) * 2)
for name in ("day-flac.flac", "day-wav.wav", "rate-4GHz.wav", "rate-1Hz.wav"):
    try:
        audio.decode(data[name])
    except audio.AudioError as error:
        print(error.reason)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["too_long", "truncated", "truncated", "bad_header"], done.stderr


def test_a_decoder_that_takes_too_long_is_stopped() -> None:
    m4a = next(case.data for case in ZOO if case.name == "phone.m4a")
    assert m4a is not None
    for data in (m4a, zoo.encoded(zoo.tone(3 * audio.BLOCK_S, 8_000), 8_000)):
        with pytest.raises(audio.AudioError, match="timeout"):
            audio.decode(data, timeout_s=1e-5)


def test_without_ffmpeg_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    m4a = next(case.data for case in ZOO if case.name == "phone.m4a")
    assert m4a is not None
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    ffmpeg.program.cache_clear()
    try:
        with pytest.raises(audio.AudioError, match=r"needs_ffmpeg: install ffmpeg, or the extra blat-ray\[ffmpeg\]"):
            audio.decode(m4a)
    finally:
        ffmpeg.program.cache_clear()


@pytest.mark.parametrize("folder", ["odd_formats", "audioset_unlabelled"])
def test_real_odd_files(blat_data: Path, folder: str) -> None:
    paths = sorted((blat_data / folder / "audio").iterdir())
    assert len(paths) > 10
    for path in paths:
        samples = audio.decode(path.read_bytes())
        assert len(samples) > audio.SAMPLE_RATE_HZ // 10 and np.abs(samples).max() > 0, path.name
