"""Decoding: right samples for odd formats, a reason for every bad input."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline import audio


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
