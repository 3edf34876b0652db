"""Decode any clip to mono 16-bit samples, and encode samples as FLAC.

Shapes: T = samples of one clip.
"""

import io
import time

import numpy as np
import soundfile
import soxr

from pipeline import ffmpeg

SAMPLE_RATE_HZ = 32_000  # rate of every clip in a shard; PANNs and BLAT work at 32 kHz
MAX_DURATION_S = 600  # a header that claims more is refused before anything is allocated
MAX_BYTES = 512 * 2**20  # a larger encoded file is not read
INT16_FULL_SCALE = 32_768.0
KNOWN_STARTS = (b"fLaC", b"RIFF", b"OggS")  # bytes that begin so and cannot be read were audio once
BLOCK_S = 30  # audio read at a time
TIMEOUT_S = 60.0  # for one clip; ten minutes of FLAC take a third of a second
MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 400_000  # of a header; others are damage
MOST_FLOAT = 8.0  # louder float samples are damage; full scale is 1
FFMPEG_STARTS = (  # place and bytes of containers that libsndfile does not read
    (4, b"ftyp"), (0, b"\x1aE\xdf\xa3"), (0, b"\x30\x26\xb2\x75"), (0, b"#!AMR"), (0, b"\xff\xf1"),
    (0, b"\xff\xf9"), (0, b"FLV"),
)  # fmt: skip
UNKNOWN_LENGTH = 2**40  # libsndfile gives a number near 2**63 for a header without a length
STREAMED_WAV = 0x7FFFFFFF  # sizes from here on are what writes to a pipe leave in the header
OGG_END_OF_STREAM = 4  # flag in a page header
MPEG_FRAME_SAMPLES = 1_152  # an MPEG header's length is a whole number of frames; decoders drop a part of the last


class AudioError(Exception):
    """A clip that cannot be used. `reason` is one of the words in `REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS, reason
        super().__init__(reason, detail)  # both in args: a pickled exception is rebuilt from them
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


REASONS = {
    "missing": "no file at the listed place",
    "unreadable": "the file is there but cannot be opened",
    "too_large": f"the file has more than {MAX_BYTES} bytes",
    "empty": "the file has no bytes",
    "not_audio": "the bytes are no audio",
    "needs_ffmpeg": "the bytes may be audio that only ffmpeg reads, and there is none",
    "truncated": "the file ends before the length its header states",
    "zero_length": "the file is valid and holds no samples",
    "too_long": f"there are more than {MAX_DURATION_S} s, or the header states so",
    "bad_header": "the header states a sample rate that no audio has",
    "timeout": f"decoding took more than {TIMEOUT_S:.0f} s",
}


def decode(data: bytes, sample_rate_hz: int = SAMPLE_RATE_HZ, timeout_s: float = TIMEOUT_S) -> np.ndarray:
    """Decode encoded audio to mono samples.

    Args:
        data: a whole encoded file: what libsndfile reads (FLAC, WAV, Ogg, MP3, ...), else what ffmpeg does.
        sample_rate_hz: wanted rate; other rates are resampled with soxr HQ.
        timeout_s: most seconds to take.

    Returns:
        int16 array (T,), channels averaged.

    Raises:
        AudioError: with the reason, when the bytes are not audio that can be used.
    """
    if not data:
        raise AudioError("empty", "0 bytes")
    if len(data) > MAX_BYTES:
        raise AudioError("too_large", f"{len(data)} bytes")
    _check_ending(data)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate_hz = file.samplerate
            mono = _read(file, timeout_s)
    except soundfile.LibsndfileError as error:
        if data[:4] in KNOWN_STARTS:
            raise AudioError("truncated", str(error)) from error
        if not any(data[place : place + len(mark)] == mark for place, mark in FFMPEG_STARTS):
            raise AudioError("not_audio", f"begins with {data[:8]!r}") from error
        mono, rate_hz = _decode_otherwise(data, timeout_s)
    except _UnknownLength:
        mono, rate_hz = _decode_otherwise(data, timeout_s)
    if rate_hz != sample_rate_hz:
        mono = soxr.resample(_to_float(mono), rate_hz, sample_rate_hz, quality="HQ")
    if len(mono) == 0:
        raise AudioError("zero_length", f"no sample is left at {sample_rate_hz} Hz")
    return to_int16(mono)


def _read(file: soundfile.SoundFile, timeout_s: float) -> np.ndarray:
    """Read mono samples (T,), int16 where the file has just those; by blocks, so that memory follows what is kept."""
    started = time.monotonic()
    _check_rate(file.samplerate)
    stated = _stated_length(file)
    plain = file.subtype == "PCM_16" and file.channels == 1
    most = MAX_DURATION_S * file.samplerate
    blocks: list[np.ndarray] = []
    kept = 0
    while len(block := file.read(BLOCK_S * file.samplerate, "int16" if plain else "float32", always_2d=True)):
        blocks.append(block[:, 0] if block.shape[1] == 1 else _clean(block).mean(axis=1))
        kept += len(block)
        if kept > most:
            raise AudioError("too_long", f"more than {MAX_DURATION_S} s were decoded")
        if time.monotonic() - started > timeout_s:
            raise AudioError("timeout", f"{kept / file.samplerate:.0f} s of it were decoded in {timeout_s} s")
    if kept + (MPEG_FRAME_SAMPLES if "MPEG" in file.subtype else 0) < stated:
        raise AudioError("truncated", f"header states {stated} samples, {kept} could be decoded")
    if not kept:
        raise AudioError("zero_length", f"no sample at {file.samplerate} Hz")
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _decode_otherwise(data: bytes, timeout_s: float) -> tuple[np.ndarray, int]:
    """Decode with ffmpeg; mono samples (T,) and their rate."""
    try:
        samples, rate_hz = ffmpeg.decode(data, MAX_DURATION_S + 1, timeout_s)
    except ffmpeg.Missing as error:
        raise AudioError("needs_ffmpeg", str(error)) from error
    except ffmpeg.Failed as error:
        raise AudioError("not_audio", f"ffmpeg: {error}") from error
    except TimeoutError as error:
        raise AudioError("timeout", str(error)) from error
    _check_rate(rate_hz)
    if len(samples) > MAX_DURATION_S * rate_hz:
        raise AudioError("too_long", f"more than {MAX_DURATION_S} s were decoded")
    return _clean(samples).mean(axis=1), rate_hz


def encode_flac(samples: np.ndarray, sample_rate_hz: int = SAMPLE_RATE_HZ) -> bytes:
    """Encode int16 samples (T,) as FLAC; the same samples always give the same bytes."""
    assert samples.dtype == np.int16 and samples.ndim == 1, (samples.dtype, samples.shape)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate_hz, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def fit(samples: np.ndarray, num_samples: int) -> np.ndarray:
    """Cut (T,) to `num_samples`, and zero-pad at the end when it is shorter."""
    cut = samples[:num_samples]
    return np.pad(cut, (0, num_samples - len(cut)))


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Round float samples in [-1, 1] to int16; NaN becomes 0, louder values clip; int16 passes through."""
    if samples.dtype == np.int16:
        return samples
    scaled = _clean(samples) * INT16_FULL_SCALE
    return np.clip(np.rint(scaled), -INT16_FULL_SCALE, INT16_FULL_SCALE - 1).astype(np.int16)


def _to_float(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.float32) / INT16_FULL_SCALE if samples.dtype == np.int16 else _clean(samples)


def _clean(samples: np.ndarray) -> np.ndarray:
    """Bound float samples, so that one that is no number does not spread to others in a mean or a filter."""
    return np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0).clip(-MOST_FLOAT, MOST_FLOAT)


def _check_rate(rate_hz: int) -> None:
    """Raise before anything is allocated for seconds of absurd length."""
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise AudioError("bad_header", f"states {rate_hz} samples a second")


class _UnknownLength(Exception):
    """FLAC that was written to a pipe: libsndfile cannot step through it."""


def _stated_length(file: soundfile.SoundFile) -> int:
    """Return the samples per channel that the header states."""
    if file.frames == 0:
        raise AudioError("zero_length", f"header states 0 samples at {file.samplerate} Hz")
    if file.frames >= UNKNOWN_LENGTH:
        raise _UnknownLength
    if file.frames > MAX_DURATION_S * file.samplerate:
        raise AudioError("too_long", f"header states {file.frames / file.samplerate:.0f} s")
    return int(file.frames)


def _check_ending(data: bytes) -> None:
    """Raise for WAV and Ogg files that end early: libsndfile reads what is there and does not tell."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        place = 12
        while place + 8 <= len(data) and data[place : place + 4] != b"data":
            place += 8 + int.from_bytes(data[place + 4 : place + 8], "little")
        stated, held = int.from_bytes(data[place + 4 : place + 8], "little"), len(data) - place - 8
        if held < stated < STREAMED_WAV:
            raise AudioError("truncated", f"data chunk states {stated} bytes, the file holds {held}")
    if data[:4] == b"OggS":
        last = data.rfind(b"OggS")
        if len(data) < last + 6 or not data[last + 5] & OGG_END_OF_STREAM:
            raise AudioError("truncated", "the last Ogg page does not end the stream")
