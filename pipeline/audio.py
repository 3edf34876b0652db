"""Decode any clip to mono 16-bit samples, and encode samples as FLAC.

Shapes: T = samples of one clip.
"""

import io
import re
import struct
import time
from collections.abc import Iterator
from itertools import chain, islice
from typing import Literal

import numpy as np
import soundfile
import soxr

from pipeline import ffmpeg

SAMPLE_RATE_HZ = 32_000  # rate of every clip in a shard; PANNs and BLAT work at 32 kHz
MAX_DURATION_S = 600  # a header that claims more is refused before anything is allocated
MAX_BYTES = 512 * 2**20  # a larger encoded file is not read
INT16_FULL_SCALE = 32_768.0
BLOCK_S, BLOCK_VALUES = 30, 2**22  # audio read at a time, and the most samples of all channels in it
TIMEOUT_S = 60.0  # for one clip; ten minutes of FLAC take a third of a second
MIN_RATE_HZ, MAX_RATE_HZ, MAX_CHANNELS = 1_000, 400_000, 1_024  # of a header; others are damage
MOST_FLOAT = 8.0  # louder float samples are damage; full scale is 1
KNOWN_START = re.compile(rb"(?s)fLaC|OggS|caff|RF64|RIFX|RIFF....WAVE|FORM....AIF[FC]")  # such bytes were audio once
CHUNKED = {b"RIFF": b"data", b"RIFX": b"data", b"RF64": b"data", b"FORM": b"SSND", b"caff": b"data"}  # of samples
MOST_CHUNKS = 1_000  # looked at; there are a handful
UNKNOWN_LENGTH = 2**40  # libsndfile gives a number near 2**63 for a header without a length
STREAMED = 0x7FFF0000  # sizes from here on are what writers to a pipe leave in the header; MAX_BYTES is less
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
    "bad_header": "the header states a sample rate or a number of channels that no audio has",
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
    _check_header(data)
    _check_ending(data)
    try:
        file = _Sound(_Bytes(data))
    except soundfile.LibsndfileError as error:
        samples = _decode_otherwise(data, sample_rate_hz, timeout_s, error.error_string)
    else:
        with file:
            samples = _read(file, sample_rate_hz, timeout_s)
    if len(samples) == 0:
        raise AudioError("zero_length", f"no sample at {sample_rate_hz} Hz")
    return samples


class _Bytes(io.BytesIO):
    """Bytes as a file. A broken header makes libsndfile seek to before their start, which is no error there."""

    def seek(self, place: int, whence: int = 0, /) -> int:
        return super().seek(max(0, place) if whence == 0 else place, whence)


class _Sound(soundfile.SoundFile):
    """A sound file read front to back: without the seek after each read, which FLAC of unknown length does not take."""

    def seekable(self) -> bool:
        return False


def _read(file: soundfile.SoundFile, sample_rate_hz: int, timeout_s: float) -> np.ndarray:
    """Read mono int16 samples (T,) at the wanted rate. What is held is what is kept, and one block as it was."""
    try:
        blocks = _blocks(file, timeout_s)
        if file.samplerate != sample_rate_hz:
            blocks = _resample(blocks, file.samplerate, sample_rate_hz)
        kept = [to_int16(block) for block in blocks]
    except soundfile.LibsndfileError as error:
        raise AudioError("truncated", f"cannot be decoded to its end: {error.error_string}") from error
    return kept[0] if len(kept) == 1 else np.concatenate(kept or [np.zeros(0, np.int16)])


def _blocks(file: soundfile.SoundFile, timeout_s: float) -> Iterator[np.ndarray]:
    """Yield mono samples (T,): int16 where the file has just those, else float32."""
    started = time.monotonic()
    _check_rate(file.samplerate)
    most = MAX_DURATION_S * file.samplerate
    stated = file.frames if file.frames < UNKNOWN_LENGTH else 0
    if stated > most:
        raise AudioError("too_long", f"header states {stated / file.samplerate:.0f} s")
    plain, odd = file.subtype == "PCM_16" and file.channels == 1, file.subtype in ("FLOAT", "DOUBLE")
    size = min(BLOCK_S * file.samplerate, BLOCK_VALUES // file.channels)
    kept, end = 0, stated or (file.frames and most + 1)
    while kept < end:
        block = file.read(min(size, end - kept), "int16" if plain else "float32", always_2d=True)
        if not len(block):
            break
        kept += len(block)
        if kept > most:
            raise AudioError("too_long", f"more than {MAX_DURATION_S} s were decoded")
        if time.monotonic() - started > timeout_s:
            raise AudioError("timeout", f"not decoded within {timeout_s} s")
        yield block[:, 0] if file.channels == 1 else (_clean(block) if odd else block).mean(axis=1)
    if kept + (MPEG_FRAME_SAMPLES if "MPEG" in file.subtype else 0) < stated:
        raise AudioError("truncated", f"header states {stated} samples, {kept} could be decoded")


def _resample(blocks: Iterator[np.ndarray], rate_hz: int, sample_rate_hz: int) -> Iterator[np.ndarray]:
    """Resample blocks as if they were one array; a single one, as most clips are, at once, which is a third faster."""
    first = list(islice(blocks, 2))
    if len(first) == 1:
        yield soxr.resample(_to_float(first[0]), rate_hz, sample_rate_hz, quality="HQ")
    elif first:
        stream = soxr.ResampleStream(rate_hz, sample_rate_hz, 1, dtype="float32", quality="HQ")
        for block in chain(first, blocks):
            yield stream.resample_chunk(_to_float(block))
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _decode_otherwise(data: bytes, sample_rate_hz: int, timeout_s: float, said: str) -> np.ndarray:
    """Decode with ffmpeg what libsndfile does not know, where it looks like audio; int16 (T,)."""
    bad = "truncated" if KNOWN_START.match(data) else "not_audio"
    if not ffmpeg.may_read(data):
        raise AudioError(bad, f"begins with {data[:8]!r}: {said}")
    try:
        with ffmpeg.decoded(data, timeout_s) as file:
            return _read(file, sample_rate_hz, timeout_s)
    except ffmpeg.Failed as error:
        raise AudioError(error.reason or bad, str(error)) from error
    except OSError as error:
        raise AudioError("unreadable", f"no temporary file for ffmpeg: {error.strerror}") from error


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


def _check_header(data: bytes) -> None:
    """Raise for WAV of an impossible rate or channel count: libsndfile refuses some without a reason."""
    place, size = _chunk(data, b"fmt ") if data[:4] == b"RIFF" and data[8:12] == b"WAVE" else (0, 0)
    if size >= 16 and place + 16 <= len(data):
        channels, rate_hz = struct.unpack_from("<HI", data, place + 2)
        if not 1 <= channels <= MAX_CHANNELS:
            raise AudioError("bad_header", f"states {channels} channels")
        _check_rate(rate_hz)


def _check_ending(data: bytes) -> None:
    """Raise for uncompressed and Ogg files that hold less than they state: libsndfile reads what is there."""
    start, place, stated = data[:4], 0, 0
    if start in CHUNKED:
        place, stated = _chunk(data, CHUNKED[start])
        if start == b"RF64" and data[12:16] == b"ds64":  # sizes beyond 32 bits stand there
            stated = int.from_bytes(data[28:36], "little")
    if start == b"RIFF" and data[8:12] == b"AVI ":
        place, stated = 8, int.from_bytes(data[4:8], "little")
    elif start == b".snd":
        place, stated = int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:12], "big")
    elif start == b"OggS":
        last = data.rfind(b"OggS")
        if len(data) < last + 6 or not data[last + 5] & OGG_END_OF_STREAM:
            raise AudioError("truncated", "the last Ogg page does not end the stream")
    if len(data) - place < stated < STREAMED:
        raise AudioError("truncated", f"header states {stated} bytes, the file holds {len(data) - place} of them")


def _chunk(data: bytes, name: bytes) -> tuple[int, int]:
    """Return where the first chunk of a name begins, after its header, and the size it states; (0, 0): none."""
    order: Literal["little", "big"] = "little" if data[:4] in (b"RIFF", b"RF64") else "big"
    place, width, even = (8, 8, 1) if data[:4] == b"caff" else (12, 4, 2)
    for _ in range(MOST_CHUNKS):
        size = int.from_bytes(data[place + 4 : place + 4 + width], order)
        if data[place : place + 4] == name and place + 4 + width <= len(data):
            return place + 4 + width, size
        place += 4 + width + size + size % even  # chunks begin at even places
    return 0, 0
