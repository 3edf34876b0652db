"""MP3 whose length no header states: decoded to its end, whatever stands around its frames."""

import itertools
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline import audio
from pipeline.audio import ffmpeg, mpeg
from tests.support import zoo


def has_ffmpeg() -> bool:
    try:
        return bool(ffmpeg.program())
    except ffmpeg.Missing:
        return False


pytestmark = pytest.mark.skipif(not has_ffmpeg(), reason="no ffmpeg to make MP3 without a header")
COVER = b"ID3\x04\x00\x00\x00\x02\x00\x00" + b"\xff\xfb\x90\x00" * (2 << 12)  # 32 KiB that hold what looks like headers
ID3V1 = b"TAG" + b"x" * 125
APE = b"APETAGEX" + bytes(range(256)) * 30


def sound(seconds: float, rate_hz: int, channels: int) -> np.ndarray:
    """Return loud and quiet stretches, so that a variable bitrate varies."""
    samples = zoo.tone(seconds, rate_hz, channels)
    return samples * (np.sin(np.arange(len(samples)) / rate_hz * 3) > 0)[:, None]


def without_header(folder: Path, samples: np.ndarray, rate_hz: int, *flags: str, suffix: str = ".mp3") -> bytes:
    source, target = folder / "in.wav", folder / f"out{suffix}"
    soundfile.write(source, samples, rate_hz)
    command = [ffmpeg.program(), "-v", "error", "-y", "-i", str(source), "-write_xing", "0", "-id3v2_version", "0"]
    command = [flag for flag in command if suffix == ".mp3" or flag not in ("-write_xing", "-id3v2_version", "0")]
    subprocess.run([*command, *flags, str(target)], check=True)
    return target.read_bytes()


def pieces(stream: bytes) -> list[bytes]:
    """Return the frames of a plain stream."""
    places = [*mpeg._positions(stream), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(places)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Ten seconds of variable bitrate, which libsndfile takes for four."""
    return without_header(tmp_path_factory.mktemp("mp3"), sound(10.0, 44_100, 2), 44_100, "-q:a", "4")


def test_libsndfile_alone_would_lose_most_of_it(plain: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(plain)
    assert soundfile.info(tmp_path / "a.mp3").duration < 9.0
    assert len(audio.decode(plain)) / audio.SAMPLE_RATE_HZ == pytest.approx(10.0, abs=0.08)


def test_what_stands_around_the_frames_changes_nothing(plain: bytes) -> None:
    rng = np.random.default_rng(0)
    frames = pieces(plain)
    early, late = b"".join(frames[:100]), b"".join(frames[100:])
    wanted = audio.decode(plain)
    for odd in (
        COVER + plain,
        COVER + COVER + plain + APE + ID3V1,
        plain + APE + rng.bytes(1_000_000),
        plain + bytes(50_000),
        early + rng.bytes(100) + late,
        early + rng.bytes(5_000) + late,
        early + bytes(5_000) + late,
        early + COVER + late,
    ):
        assert np.array_equal(audio.decode(odd), wanted)


def test_a_cut_frame_is_truncated_and_a_cut_between_frames_cannot_be_known(plain: bytes) -> None:
    frames = pieces(plain)
    for number in (5, 200, len(frames) - 1):
        whole = b"".join(frames[:number])
        for lacking in (1, len(frames[number]) - mpeg.HEADER_BYTES):
            with pytest.raises(audio.AudioError, match=f"truncated: the last frame lacks {lacking} bytes"):
                audio.decode(whole + frames[number][:-lacking])
        assert len(audio.decode(whole)) == round(number * 1_152 * audio.SAMPLE_RATE_HZ / 44_100)


def test_free_format(plain: bytes, tmp_path: Path) -> None:
    """Frames that state no size: a constant bitrate with the number taken out of each header."""
    constant = without_header(tmp_path, sound(10.0, 48_000, 1), 48_000, "-b:a", "64k")
    free = b"".join(frame[:2] + bytes([frame[2] & 0x0F]) + frame[3:] for frame in pieces(constant))
    wanted = audio.decode(constant)
    for odd in (free, COVER + free + ID3V1):
        assert np.array_equal(audio.decode(odd), wanted)


@pytest.mark.parametrize("seed", range(24))
def test_the_length_is_right(seed: int, tmp_path: Path) -> None:
    """Any rate, bitrate, length and number of channels; layer II; an MP3 of libsndfile's without its first frame."""
    rng = np.random.default_rng(seed)
    rate_hz = int(rng.choice([8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000]))
    seconds, channels = float(rng.uniform(0.2, 15.0)), int(rng.integers(1, 3))
    samples = sound(seconds, rate_hz, channels)
    if seed % 4 == 0:
        data = b"".join(pieces(zoo.encoded(samples, rate_hz, "MP3"))[1:])
    elif seed % 4 == 1 and rate_hz >= 16_000:
        data = without_header(tmp_path, samples, rate_hz, suffix=".mp2")
    else:
        quality = [["-q:a", str(rng.integers(10))], ["-b:a", f"{rng.choice([24, 64, 128])}k"]][seed % 2]
        data = without_header(tmp_path, samples, rate_hz, *quality)
    assert not mpeg.states_length(data)
    before, after = [(b"", b""), (COVER, b""), (b"", ID3V1), (COVER, APE + ID3V1)][rng.integers(4)]
    got = len(audio.decode(before + data + after)) / audio.SAMPLE_RATE_HZ
    frame_s = (576 if rate_hz < 32_000 and seed % 4 != 1 else 1_152) / rate_hz
    assert -0.001 < got - seconds < 1_105 / rate_hz + 2 * frame_s  # LAME's delay, and what fills the last frame
