"""Decode any clip to mono 16-bit samples.

Shapes: T = samples of one clip.
"""

import io
import re
import time
from collections.abc import Iterator
from itertools import chain, islice
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr

from pipeline.audio import canonical, containers, ffmpeg, mpeg
from pipeline.audio.canonical import MAX_DURATION_S, SAMPLE_RATE_HZ
from pipeline.audio.span import MISSING_S, Span

MAX_BYTES = 512 * 2**20  # a larger encoded file is not read
INT16_FULL_SCALE = 32_768.0
BLOCK_S, MAX_BLOCK_VALUES = 30, 2**22  # audio read at a time; samples of all channels in it
TIMEOUT_S = 60.0  # for one clip; ten minutes of FLAC take a third of a second
MAX_FLOAT = 8.0  # louder float samples are damage; full scale is 1
KNOWN_START = re.compile(rb"(?s)fLaC|OggS|caff|RF64|RIFX|RIFF....WAVE|FORM....AIF[FC]")  # such bytes were audio once
MAX_FRAMES = 2**40  # libsndfile gives a number near 2**63 for a header without a length
MPEG_FRAME_SAMPLES = 1_152  # an MPEG header's length is a whole number of frames; decoders drop a part of the last
SEEKABLE = re.compile(r"PCM_\w+|FLOAT|DOUBLE|[UA]LAW")  # subtypes that decode to the same samples after a seek


class AudioError(Exception):
    """The audio of a clip cannot be used. `reason` is a key of `REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS, reason
        super().__init__(reason, detail)  # both in args: pickle rebuilds an exception from its args
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
    "out_of_range": f"the part begins at or after the end of the file, or ends more than {MISSING_S} s after it",
    "bad_header": "the header states a sample rate or a number of channels that no audio has",
    "crashed": "decoding ended its process",
    "timeout": f"decoding took more than {TIMEOUT_S:.0f} s",
}


def decode(
    data: bytes,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    timeout_s: float = TIMEOUT_S,
    start_s: float = 0.0,
    end_s: float = 0.0,
) -> np.ndarray:
    """Decode encoded audio, or a part of it, to mono samples.

    A part is cut at the rate of the file, each edge at the nearest sample, and then resampled. The result is the same as
    decoding the whole file, cutting it and resampling the cut. The rest of the file is not kept in memory.

    Args:
        data: a whole encoded file, of a format that libsndfile (FLAC, WAV, Ogg, MP3, ...) or ffmpeg reads.
        sample_rate_hz: rate of the result; other rates are resampled with soxr HQ.
        timeout_s: limit on the time that decoding takes.
        start_s: where the part begins, in seconds from the start of the file.
        end_s: where the part ends; 0 is the end of the file.

    Returns:
        int16 array (T,), channels averaged.

    Raises:
        AudioError: with the reason, when the bytes are not audio that can be used.
        OSError: when this machine cannot run ffmpeg now: no room for a temporary file, no memory, no descriptors left.
    """
    if not data:
        raise AudioError("empty", "0 bytes")
    if len(data) > MAX_BYTES:
        raise AudioError("too_large", f"{len(data)} bytes")
    span = Span(start_s, end_s)
    if sample_rate_hz == SAMPLE_RATE_HZ and span.whole and (known := canonical.decode(data)) is not None:
        return known
    if fault := span.impossible():
        raise AudioError("out_of_range", fault)
    if fault := containers.bad_header(data):
        raise AudioError("bad_header", fault)
    if fault := containers.cut_short(data):
        raise AudioError("truncated", fault)
    samples = _decode(data, _Request(sample_rate_hz, timeout_s, span))
    if len(samples) == 0:
        raise AudioError("zero_length", f"no sample at {sample_rate_hz} Hz")
    return samples


def decode_part(file: BinaryIO, start_s: float, end_s: float) -> np.ndarray | None:
    """Decode a part of a file at `SAMPLE_RATE_HZ` without reading the rest: of uncompressed audio and FLAC.

    The samples are those of `decode`. That what lies outside of the part is whole is not checked.

    Args:
        file: that can seek.
        start_s: where the part begins, in seconds from the start of the file.
        end_s: where the part ends; 0 is the end of the file.

    Returns:
        int16 array (T,), channels averaged; None where the whole file is needed.

    Raises:
        AudioError: with the reason, when the part cannot be used.
    """
    try:
        sound = _Sound(file)
    except soundfile.LibsndfileError:
        return None
    with sound:
        if not (SEEKABLE.fullmatch(sound.subtype) and 0 < sound.frames < MAX_FRAMES):
            return None
        return _read(sound, _Request(SAMPLE_RATE_HZ, TIMEOUT_S, Span(start_s, end_s)), stated=sound.frames)


class _Request(NamedTuple):
    """What to decode of a file, at which rate, in which time."""

    sample_rate_hz: int
    timeout_s: float
    span: Span


class _Bytes(io.BytesIO):
    """Bytes as a file. A broken header makes libsndfile seek to a negative position, which it does not mind."""

    def seek(self, position: int, whence: int = 0, /) -> int:
        return super().seek(max(0, position) if whence == 0 else position, whence)


class _Sound(soundfile.SoundFile):
    """A sound file read from front to back, without a seek after each read: that fails for FLAC of unknown length."""

    def seekable(self) -> bool:
        return False


def _decode(data: bytes, request: _Request) -> np.ndarray:
    """Decode with libsndfile, or with ffmpeg where libsndfile does not read the format; int16 (T,)."""
    try:
        file = _Sound(_Bytes(data))
    except soundfile.LibsndfileError as error:
        return _decode_with_ffmpeg(data, request, error.error_string)
    with file:
        if "MPEG" in file.subtype and not mpeg.states_length(data):
            return _decode_stream(data, file, request)
        return _read(file, request, stated=file.frames if file.frames < MAX_FRAMES else 0)


def _decode_stream(data: bytes, file: _Sound, request: _Request) -> np.ndarray:
    """Decode MPEG audio whose header states no length; int16 (T,).

    libsndfile would stop at a length that it estimates from the size of the file. A pipe has no size: there it reads to the
    end.
    """
    frames = mpeg.frames(data)
    if frames is None:  # frames of free format have one size, so that the estimate is exact
        return _read(file, request, stated=0)
    if frames.lacking:
        raise AudioError("truncated", f"the last frame lacks {frames.lacking} bytes")
    with mpeg.piped(frames.stream) as descriptor, _Sound(descriptor, closefd=False) as stream:
        return _read(stream, request, stated=frames.num_samples)


def _read(file: soundfile.SoundFile, request: _Request, stated: int) -> np.ndarray:
    """Read mono int16 samples (T,) at the rate of the request, block by block. `stated`: as in the header; 0 for unknown."""
    try:
        blocks = _blocks(file, request, stated)
        if file.samplerate != request.sample_rate_hz:
            blocks = _resample(blocks, file.samplerate, request.sample_rate_hz)
        parts = [to_int16(block) for block in blocks]
    except soundfile.LibsndfileError as error:
        raise AudioError("truncated", f"cannot be decoded to its end: {error.error_string}") from error
    return parts[0] if len(parts) == 1 else np.concatenate(parts or [np.zeros(0, np.int16)])


def _blocks(file: soundfile.SoundFile, request: _Request, stated: int) -> Iterator[np.ndarray]:
    """Yield mono samples (T,) of a span: int16 where the file is mono PCM_16, else float32."""
    started = time.monotonic()
    first, last = _edges(file.samplerate, request.span, stated)
    is_int16 = file.subtype == "PCM_16" and file.channels == 1
    is_float = file.subtype in ("FLOAT", "DOUBLE")
    max_samples = MAX_DURATION_S * file.samplerate
    end = last if last is not None else file.frames and first + max_samples + 1
    size = min(BLOCK_S * file.samplerate, MAX_BLOCK_VALUES // file.channels)
    position = file.seek(first) if first and stated and SEEKABLE.fullmatch(file.subtype) else 0
    while position < end:
        block = file.read(min(size, end - position), "int16" if is_int16 else "float32", always_2d=True)
        if not len(block):
            break
        position += len(block)
        if position - first > max_samples:
            raise AudioError("too_long", f"more than {MAX_DURATION_S} s were decoded")
        if time.monotonic() - started > request.timeout_s:
            raise AudioError("timeout", f"not decoded within {request.timeout_s} s")
        if len(block := block[max(0, first - position + len(block)) :]):  # samples before the span are dropped
            yield block[:, 0] if file.channels == 1 else to_mono(_clean(block) if is_float else block)
    if position + (MPEG_FRAME_SAMPLES if "MPEG" in file.subtype else 0) < min(stated, end):
        raise AudioError("truncated", f"{stated} samples are stated, {position} could be decoded")
    if not stated and position < end and (fault := request.span.outside(file.samplerate, position)):
        raise AudioError("out_of_range", fault)


def _edges(rate_hz: int, span: Span, stated: int) -> tuple[int, int | None]:
    """Return `Span.edges`. Raises for an absurd rate or length, before anything is allocated for it."""
    if fault := containers.bad_rate(rate_hz):
        raise AudioError("bad_header", fault)
    if stated and (fault := span.outside(rate_hz, stated)):
        raise AudioError("out_of_range", fault)
    first, last = span.edges(rate_hz, stated)
    if last is not None and last - first > MAX_DURATION_S * rate_hz:
        whole = f"{stated / rate_hz:.0f} s are stated, " if stated else ""
        raise AudioError("too_long", f"{whole}{(last - first) / rate_hz:.0f} s are wanted")
    return first, last


def _resample(blocks: Iterator[np.ndarray], rate_hz: int, sample_rate_hz: int) -> Iterator[np.ndarray]:
    """Resample blocks as if they were one array. A single block, as most clips are, takes a third less time at once."""
    first = list(islice(blocks, 2))
    if len(first) == 1:
        yield soxr.resample(_to_float(first[0]), rate_hz, sample_rate_hz, quality="HQ")
    elif first:
        stream = soxr.ResampleStream(rate_hz, sample_rate_hz, 1, dtype="float32", quality="HQ")
        for block in chain(first, blocks):
            yield stream.resample_chunk(_to_float(block))
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _decode_with_ffmpeg(data: bytes, request: _Request, sndfile_error: str) -> np.ndarray:
    """Decode with ffmpeg bytes that begin like a container it reads; int16 (T,)."""
    reason = "truncated" if KNOWN_START.match(data) else "not_audio"
    if not ffmpeg.may_read(data):
        raise AudioError(reason, f"begins with {data[:8]!r}: {sndfile_error}")
    try:
        with ffmpeg.decoded(data, request.timeout_s) as file:
            return _read(file, request, stated=0)
    except ffmpeg.Failed as error:
        raise AudioError(error.reason or reason, str(error)) from error


def to_mono(samples: np.ndarray) -> np.ndarray:
    """Average the channels of float32 samples (T, C); float32 (T,).

    The result is that of `mean`, which takes eighteen times as long for two channels: it loops over the samples.
    """
    channels = samples.shape[1]
    if channels >= 8:  # which `mean` adds up in another order
        return samples.mean(axis=1)
    total = samples[:, 0]
    for channel in range(1, channels):
        total = total + samples[:, channel]
    return total / np.float32(channels)


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
    """Bound float samples, so that a NaN does not spread to other samples in a mean or a filter."""
    return np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0).clip(-MAX_FLOAT, MAX_FLOAT)
