"""Fingerprints: the same recording is found whatever was done to the file, others are not."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from pipeline import audio
from pipeline.audio.fingerprint import MAX_ERRORS, SILENCE, FingerprintIndex, compute

RATE_HZ = 32_000


def scene(seed: int, seconds: float = 6.0) -> np.ndarray:
    """Return noise whose bands swell and fade: every scene another one."""
    draw = np.random.default_rng(seed)
    slow = draw.normal(size=(40, round(seconds * 8)))
    spectrum = soxr.resample(np.exp(slow.T), 8, 100, quality="LQ")
    frames = np.fft.irfft(
        np.repeat(np.abs(spectrum), 4, axis=1) * np.exp(2j * np.pi * draw.random((len(spectrum), 160))), n=640
    )
    wave = frames[:, :320].ravel()
    return audio.to_int16(0.3 * wave / np.abs(wave).max())


def reencoded(samples: np.ndarray, rate_hz: int, kind: str, gain: float = 1.0) -> np.ndarray:
    buffer = io.BytesIO()
    wave = soxr.resample(samples.astype(np.float32) / 32_768 * gain, RATE_HZ, rate_hz)
    soundfile.write(buffer, wave, rate_hz, format=kind)
    return audio.decode(buffer.getvalue())


@pytest.fixture(scope="module")
def index() -> FingerprintIndex:
    return FingerprintIndex((f"scene {seed}", compute(scene(seed), RATE_HZ)) for seed in range(30))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: x // 4,
        lambda x: x[11_840:],
        lambda x: x[32_000:128_000],
        lambda x: np.pad(x, (50_000, 20_000)),
        lambda x: reencoded(x, 22_050, "OGG", 0.5),
        lambda x: reencoded(x, 44_100, "MP3"),
        lambda x: audio.to_int16(x / 32_768 + np.random.default_rng(0).normal(0, 0.003, len(x))),
    ],
    ids=["same", "quieter", "starts later", "a part", "in silence", "ogg", "mp3", "noisier"],
)
def test_a_recording_is_found_again(index: FingerprintIndex, change: object) -> None:
    for seed in (0, 13, 29):
        match = index.find(compute(change(scene(seed)), RATE_HZ))  # type: ignore[operator]
        assert match is not None and match.name == f"scene {seed}"
        assert 0 <= match.bit_error_rate <= MAX_ERRORS and 1.8 < match.seconds < 6.0


def test_other_recordings_are_not(index: FingerprintIndex) -> None:
    assert [index.find(compute(scene(seed), RATE_HZ)) for seed in range(100, 160)] == [None] * 60


def test_white_noises_differ() -> None:
    noises = [audio.to_int16(np.random.default_rng(seed).normal(0, 0.1, 6 * RATE_HZ)) for seed in range(2)]
    index = FingerprintIndex([("noise", compute(noises[0], RATE_HZ))])
    assert index.find(compute(noises[1], RATE_HZ)) is None
    assert index.find(compute(noises[0], RATE_HZ)) is not None


def test_silence_matches_nothing() -> None:
    quiet = np.random.default_rng(0).integers(-3, 4, 6 * RATE_HZ).astype(np.int16)
    silent = [np.zeros(6 * RATE_HZ, np.int16), quiet]
    words = [compute(samples, RATE_HZ) for samples in silent]
    assert all((w == SILENCE).all() and len(w) > 100 for w in words)
    index = FingerprintIndex(("silence", w) for w in words)
    assert [index.find(w) for w in words] == [None, None]
    padded = np.pad(scene(0)[: 3 * RATE_HZ], (0, 3 * RATE_HZ))
    other = np.pad(scene(1)[: 3 * RATE_HZ], (0, 3 * RATE_HZ))
    assert FingerprintIndex([("padded", compute(padded, RATE_HZ))]).find(compute(other, RATE_HZ)) is None


@pytest.mark.parametrize("length", [0, 1, 5_000, 16_000])
def test_short_clips_have_nothing_to_compare(index: FingerprintIndex, length: int) -> None:
    words = compute(scene(0)[:length], RATE_HZ)
    assert words.dtype == np.uint32 and len(words) < 40 and index.find(words) is None


def test_an_empty_index_finds_nothing() -> None:
    assert len(FingerprintIndex([])) == 0 and FingerprintIndex([]).find(compute(scene(0), RATE_HZ)) is None
    assert FingerprintIndex([("short", compute(scene(0)[:10], RATE_HZ))]).find(compute(scene(0), RATE_HZ)) is None


def test_real_clips_are_found_again_and_others_are_not(blat_data: Path) -> None:
    """400 ESC-50 clips indexed; a hit on a clip of another Freesound id would be a false alarm, or a re-upload."""
    paths = sorted((blat_data / "esc50" / "audio").glob("*.ogg"))
    samples = {path: audio.decode(path.read_bytes()) for path in paths[::2]}
    words = {path: compute(s, RATE_HZ) for path, s in samples.items()}
    known = list(samples)[::2]
    index = FingerprintIndex((path.name, words[path]) for path in known)
    lasting = [path for path in known if (words[path] != SILENCE).sum() >= 60][:120]
    changes = (lambda x: reencoded(x, 22_050, "OGG", 0.5), lambda x: x[32_000:])
    for change in changes:
        found = [index.find(compute(change(samples[path]), RATE_HZ)) for path in lasting]
        right = [match is not None and match.name == path.name for match, path in zip(found, lasting, strict=True)]
        assert sum(right) >= 0.96 * len(lasting)
    strangers = [path for path in samples if path not in set(known)]
    alarms = [
        m for path in strangers if (m := index.find(words[path])) and m.name.split("-")[1] != path.name.split("-")[1]
    ]
    assert len(alarms) <= 3, alarms  # as seen: neighbouring uploads that share sound
