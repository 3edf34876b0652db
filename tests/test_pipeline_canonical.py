"""Canonical FLAC: recognised, decoded by the faster decoder to the same samples, and never trusted when it is damaged."""

import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from pipeline import audio, sources
from pipeline.audio import canonical, decoding
from pipeline.sources import AudioLocation
from tests.support import zoo

RNG = np.random.default_rng(0)
LENGTHS = (1, 15, 16, 4095, 4096, 4097, 32_000)  # around the smallest frame and the usual one


def flac(samples: np.ndarray, rate_hz: int = 32_000, subtype: str = "PCM_16", **options: float) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format="FLAC", subtype=subtype, **options)
    return buffer.getvalue()


def noise(length: int) -> np.ndarray:
    return RNG.integers(-(2**15), 2**15, length).astype(np.int16)


def block(kind: int, content: bytes, last: bool = False) -> bytes:
    """Return a metadata block."""
    return bytes([kind | 0x80 * last]) + len(content).to_bytes(3, "big") + content


def with_block(data: bytes, added: bytes) -> bytes:
    """Return a file with one more metadata block after the first, which is never the last as libsndfile writes it."""
    return data[:42] + added + data[42:]


def outcome(data: bytes) -> bytes | str:
    try:
        return audio.decode(data).tobytes()
    except audio.AudioError as error:
        return str(error)


@pytest.fixture(params=[True, False], ids=["dr_flac", "libsndfile"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways: with the faster decoder, and as on a machine for which it is not built."""
    if request.param and not canonical.DR_FLAC:
        pytest.skip("miniaudio is not installed on this machine")
    monkeypatch.setattr(canonical, "DR_FLAC", request.param)
    return bool(request.param)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_canonical_file_gives_its_samples(decoder: bool, length: int, level: float) -> None:
    samples = noise(length)
    data = flac(samples, compression_level=level)
    assert canonical.stated_samples(data) == length
    assert np.array_equal(canonical.decode(data), samples) and np.array_equal(audio.decode(data), samples)


@pytest.mark.parametrize(
    "data",
    [
        flac(noise(500), 16_000),
        flac(np.stack([noise(500), noise(500)], axis=1)),
        flac(noise(500), subtype="PCM_24"),
        zoo.encoded(zoo.tone(0.1)),
        b"ID3" + bytes(7) + flac(noise(500)),
        flac(np.zeros(0, np.int16)),
        b"fLaC",
        b"",
        with_block(flac(noise(500)), block(6, bytes(70_000))),  # a picture
        flac(noise(500)) + bytes(100_000),
    ],
    ids=[
        "16 kHz",
        "stereo",
        "24 bits",
        "WAV",
        "ID3 before it",
        "no sample",
        "cut",
        "empty",
        "a picture",
        "bytes after it",
    ],
)
def test_other_files_are_not_canonical(decoder: bool, data: bytes) -> None:
    assert canonical.stated_samples(data) == 0 and canonical.decode(data) is None


def test_small_metadata_does_no_harm(decoder: bool) -> None:
    samples = noise(500)
    assert np.array_equal(canonical.decode(with_block(flac(samples), block(1, bytes(8192)))), samples)


def test_a_header_that_states_hours_is_refused_before_anything_is_allocated(decoder: bool) -> None:
    data = bytearray(flac(noise(500)))
    data[21] |= 0x0F  # the highest bits of the number of samples: 60 G of them
    assert canonical.decode(bytes(data)) is None
    with pytest.raises(audio.AudioError, match="too_long"):
        audio.decode(bytes(data))


@pytest.mark.skipif(not canonical.DR_FLAC, reason="miniaudio is not installed on this machine")
def test_both_decoders_agree_on_damaged_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four thousand files with a flipped bit, cut, with bytes after the end, or with wrong bytes in the header."""
    rng = np.random.default_rng(1)
    good = [flac(noise(6000 + 37 * i), compression_level=i / 8) for i in range(8)]
    damaged = 0
    for turn in range(4000):
        data = bytearray(good[turn % 8])
        if turn % 4 == 0:
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        elif turn % 4 == 1:
            data = data[: rng.integers(1, len(data))]
        elif turn % 4 == 2:
            data += rng.bytes(rng.integers(300))
        else:
            data[rng.integers(90)] = rng.integers(256)
        monkeypatch.setattr(canonical, "DR_FLAC", True)
        fast = outcome(bytes(data))
        monkeypatch.setattr(canonical, "DR_FLAC", False)
        assert fast == outcome(bytes(data)), f"turn {turn}"
        damaged += isinstance(fast, str)
    assert 1500 < damaged < 3500


def test_only_a_whole_canonical_file_passes_through(tmp_path, decoder: bool) -> None:
    samples = noise(64_000)
    data, wav = flac(samples, compression_level=1.0), zoo.encoded(zoo.tone(0.1))
    (tmp_path / "a.flac").write_bytes(data)
    (tmp_path / "b.wav").write_bytes(wav)
    whole = sources.read_canonical(AudioLocation(str(tmp_path / "a.flac")))
    part = sources.read_canonical(AudioLocation(str(tmp_path / "a.flac"), cut_start_s=0.5, cut_end_s=1.0))
    assert whole.flac == data and np.array_equal(whole.samples, samples)
    assert part.flac is None and np.array_equal(part.samples, samples[16_000:32_000])
    assert sources.read_canonical(AudioLocation(str(tmp_path / "b.wav"))).flac is None


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 6, 7, 8, 9, 16])
def test_channels_are_averaged_as_numpy_does(channels: int) -> None:
    samples = np.random.default_rng(channels).normal(0, 0.3, (5_000, channels)).astype(np.float32)
    assert np.array_equal(decoding.to_mono(samples), samples.mean(axis=1))


def test_the_decoders_are_used_before_any_thread_is_there() -> None:
    """cffi makes their types at the first use; two threads that do so at the same time end the process."""
    code = (
        "import sys, threading; used = {}\n"
        "def trace(frame, event, argument):\n"
        "    used.setdefault(frame.f_code.co_name, threading.active_count())\n"
        "sys.setprofile(trace)\n"
        "import pipeline.audio\n"
        "sys.setprofile(None)\n"
        "print(*(used.get(name) for name in sys.argv[1:]))"
    )
    names = ["read", "write", *(["flac_read_s16"] if canonical.DR_FLAC else [])]
    found = subprocess.run([sys.executable, "-c", code, *names], check=True, capture_output=True, text=True).stdout
    assert found.split() == ["1"] * len(names)
