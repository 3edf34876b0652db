"""Decoding: right samples for odd formats, a reason for every bad input."""

import io
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from pipeline import audio, sources
from pipeline.audio import decoding, ffmpeg
from pipeline.sources.clip import Clip
from tests.support import zoo


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
        data = file.read_bytes()
        with soundfile.SoundFile(file) as source:
            num_samples, rate_hz = source.frames, source.samplerate
        if "MPEG" in file.name:  # libsndfile estimates; the header of the WAV file is exact
            num_samples = int.from_bytes(data[(fact := data.index(b"fact") + 8) : fact + 4], "little")
        seconds = num_samples / rate_hz
        samples = audio.decode(data)
        assert samples.dtype == np.int16
        assert abs(len(samples) / 32_000 - seconds) < 0.08, file.name  # MPEG encoders pad by a frame or two


ZOO = zoo.cases()


@pytest.fixture(scope="module")
def zoo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    assert zoo.write(folder) == ZOO, "the zoo has the same bytes at every call"
    return folder


@pytest.mark.parametrize("case", ZOO, ids=lambda case: case.name)
def test_the_zoo(case: zoo.Case, zoo_folder: Path) -> None:
    """Each file as a job reads it: right samples, or its reason with a detail that is the same every time."""
    clip = Clip(key="key", uri=str(zoo_folder / case.name), source_id=case.name)
    if case.reason:
        details = []
        for _ in range(2):
            with pytest.raises(audio.AudioError) as caught:
                sources.read_samples(clip)
            details.append(caught.value.detail)
        assert caught.value.reason == case.reason
        assert details[0] and details[0] == details[1]
    else:
        samples = sources.read_samples(clip)
        assert samples.dtype == np.int16
        assert abs(len(samples) / audio.SAMPLE_RATE_HZ - case.duration_s) < 0.08  # codecs pad by a frame or two
        loud = np.sqrt(np.mean((samples / audio.INT16_FULL_SCALE) ** 2))
        assert 0.05 < loud < 0.5 or case.duration_s != 1.0, loud


def test_without_ffmpeg_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what ffmpeg does not read keeps its reason."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    ffmpeg.program.cache_clear()
    try:
        found = zoo.cases()
        assert [case.name for case in found] == [case.name for case in ZOO]
        for case in found:
            if case.reason == "needs_ffmpeg":
                with pytest.raises(audio.AudioError, match=r"needs_ffmpeg: install ffmpeg, or .*blat-ray\[ffmpeg\]"):
                    audio.decode(case.data or b"")
            elif case.reason and case.data not in (None, b"/"):
                with pytest.raises(audio.AudioError, match=case.reason):
                    audio.decode(case.data or b"")
        assert sum(case.reason == "needs_ffmpeg" for case in found) > 10
    finally:
        ffmpeg.program.cache_clear()


def test_an_ffmpeg_that_does_not_start_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "ffmpeg"
    broken.write_text("no program")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    ffmpeg.program.cache_clear()
    try:
        with pytest.raises(audio.AudioError, match=r"needs_ffmpeg: .*cannot be started"):
            audio.decode(zoo.FTYP)
    finally:
        ffmpeg.program.cache_clear()


def test_plain_flac_is_what_soundfile_reads() -> None:
    data = zoo.encoded(zoo.tone(10.0), kind="FLAC")
    assert np.array_equal(audio.decode(data), soundfile.read(io.BytesIO(data), dtype="int16")[0])


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3", "OGG"])
@pytest.mark.parametrize(("rate_hz", "channels"), [(32_000, 1), (8_000, 2), (44_100, 2)])
def test_blocks_equal_the_whole(rate_hz: int, channels: int, kind: str) -> None:
    """Two and a half blocks, against one read and one resampling of everything."""
    left_right = zoo.tone(2.5 * decoding.BLOCK_S, rate_hz, channels) * np.linspace(1, 0.5, channels, dtype=np.float32)
    data = zoo.encoded(left_right, rate_hz, kind)
    with soundfile.SoundFile(
        io.BytesIO(data)
    ) as file:  # soundfile.read seeks first, after which MP3 is rounded otherwise
        whole = file.read(dtype="float32", always_2d=True).mean(axis=1)
    if rate_hz != 32_000:
        whole = soxr.resample(whole, rate_hz, 32_000, quality="HQ")
    assert np.array_equal(audio.decode(data), audio.to_int16(whole))


def test_one_number_that_is_none_does_not_spread() -> None:
    """A NaN in one channel of a file that is resampled leaves the rest of the clip as it is."""
    clean = zoo.tone(1.0, 44_100, channels=2)
    odd = clean.copy()
    odd[22_050, 0] = np.nan
    want, got = (audio.decode(zoo.encoded(x, 44_100, subtype="FLOAT")).astype(int) for x in (clean, odd))
    far = np.r_[0:15_000, 17_000:32_000]
    assert np.abs(want - got)[far].max() <= 1


def test_too_large_is_told_without_reading(tmp_path: Path) -> None:
    with pytest.raises(audio.AudioError, match="too_large"):
        audio.decode(bytes(audio.MAX_BYTES + 1))
    with open(tmp_path / "large.wav", "wb") as file:
        file.truncate(audio.MAX_BYTES + 1)  # a hole, which takes no space
    with pytest.raises(audio.AudioError, match="too_large"):
        sources.read_samples(Clip(key="large", uri=str(tmp_path / "large.wav"), source_id="large.wav"))


def run(program: str) -> list[str]:
    """Run a program in a process of its own, for its limits; the words it prints."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_memory_follows_what_is_kept() -> None:
    """In a process that may take 256 MiB more than it has: a day of samples would be 5 GiB, the last file 400 MiB."""
    program = """
import resource
import numpy as np
from pipeline import audio; from pipeline.audio import ffmpeg
from tests.support import zoo
data = [case.data for case in zoo.cases() if case.name.startswith(("day-", "rate-"))]
wide = bytearray(zoo.encoded(zoo.tone(0.1, 192_000, 8), 192_000, "FLAC"))
wide[18:26] = (int.from_bytes(wide[18:26], "big") >> 36 << 36 | 599 * 192_000).to_bytes(8, "big")
long = zoo.encoded(np.zeros((240 * 96_000, 2), np.int16), 96_000, "FLAC")
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 256 * 2**20,) * 2)
for file in (*data, bytes(wide), long):
    try:
        print(len(audio.decode(file)))
    except audio.AudioError as error:
        print(error.reason)
"""
    refused = ["too_long", "truncated", "bad_header", "bad_header", "bad_header", "truncated"]
    assert run(program) == [*refused, str(240 * 32_000)]


def test_no_room_for_a_copy_is_no_fault_of_the_file() -> None:
    program = """
import errno, resource
from pipeline import audio
from tests.support import zoo
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    audio.decode(zoo.FTYP)
except OSError as error:
    print(errno.errorcode[error.errno])
"""
    assert run(program) == ["EFBIG"]


def test_a_decoder_that_takes_too_long_is_stopped() -> None:
    long = zoo.encoded(zoo.tone(3 * decoding.BLOCK_S, 8_000), 8_000)
    for data in (long, zoo.transcoded(".m4a")):
        with pytest.raises(audio.AudioError, match="timeout"):
            audio.decode(data, timeout_s=1e-5)


@pytest.fixture(scope="module")
def eleven_minutes() -> bytes:
    return zoo.transcoded(".m4a", "-b:a", "8k", source=("-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono:d=660"))


def test_ffmpeg_is_stopped_in_the_middle(eleven_minutes: bytes) -> None:
    """It cannot be done when its time is up: the pipe holds less than this, and nobody reads."""
    with pytest.raises(ffmpeg.Late), ffmpeg.decoded(eleven_minutes, timeout_s=0.5) as stream:
        time.sleep(1.0)
        list(iter(lambda: len(stream.read(100_000)), 0))


def test_more_than_ten_minutes_from_ffmpeg_is_too_long(eleven_minutes: bytes) -> None:
    with pytest.raises(audio.AudioError, match="too_long"):
        audio.decode(eleven_minutes)


@pytest.mark.filterwarnings("error")
def test_damage_anywhere_is_a_reason_or_samples(capfd: pytest.CaptureFixture[str]) -> None:
    """Five hundred files with wrong bytes, most of them in the header, and a fifth cut: never another exception."""
    good = [case.data for case in ZOO if case.data and not case.reason and 200 < len(case.data) < 200_000]
    good += [zoo.encoded(zoo.tone(0.2), kind=kind) for kind in ("AU", "W64", "RF64", "CAF")]
    fast, slow = [d for d in good if d[4:8] != b"ftyp"], [d for d in good if d[4:8] == b"ftyp"]
    rng = np.random.default_rng(0)
    ended = Counter[str]()
    for turn in range(500):
        files = fast if turn % 25 else slow
        data = bytearray(files[rng.integers(len(files))])
        for _ in range(rng.choice([1, 2, 8, 64])):
            place = rng.integers(min(len(data), rng.choice([64, 300, len(data)])))
            data[place] = rng.choice([0, 255, rng.integers(256), data[place] ^ 1 << rng.integers(8)])
        data = data[: rng.integers(1, len(data))] if turn % 5 == 0 else data
        try:
            samples = audio.decode(bytes(data))
            assert samples.dtype == np.int16 and 0 < len(samples) <= audio.MAX_DURATION_S * 32_001
            ended["decodes"] += 1
        except audio.AudioError as error:
            assert error.detail
            ended[error.reason] += 1
    assert ended["decodes"] > 50 and ended["truncated"] > 50 and "timeout" not in ended, ended
    assert "Traceback" not in capfd.readouterr().err


def test_decoding_starts_without_torch_ray_and_the_optional() -> None:
    named = '("torch", "ray", "pyarrow", "imageio_ffmpeg")'
    assert run(f"import sys; from pipeline import audio; print(*[n for n in {named} if n in sys.modules])") == []


@pytest.mark.parametrize("folder", ["odd_formats", "audioset_unlabelled"])
def test_real_odd_files(blat_data: Path, folder: str) -> None:
    paths = sorted((blat_data / folder / "audio").iterdir())
    assert len(paths) > 10
    for path in paths:
        samples = audio.decode(path.read_bytes())
        assert len(samples) > audio.SAMPLE_RATE_HZ // 10 and np.abs(samples).max() > 0, path.name
