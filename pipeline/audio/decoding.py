"""Decode any clip to mono 16-bit samples, and encode samples as FLAC.

Shapes: T = samples of one clip.
"""

import io
import re
import time
from collections.abc import Iterator
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from pipeline.audio import containers, ffmpeg, mpeg
from pipeline.audio.part import MISSING_S, Part

SAMPLE_RATE_HZ = 32_000  # rate of every clip in a shard; PANNs and BLAT work at 32 kHz
MAX_DURATION_S = 600  # of what is decoded; a header that states more is refused before anything is allocated
MAX_BYTES = 512 * 2**20  # a larger encoded file is not read
INT16_FULL_SCALE = 32_768.0
BLOCK_S, BLOCK_VALUES = 30, 2**22  # audio read at a time, and the most samples of all channels in it
TIMEOUT_S = 60.0  # for one clip; ten minutes of FLAC take a third of a second
MAX_FLOAT = 8.0  # louder float samples are damage; full scale is 1
KNOWN_START = re.compile(rb"(?s)fLaC|OggS|caff|RF64|RIFX|RIFF....WAVE|FORM....AIF[FC]")  # such bytes were audio once
UNKNOWN_LENGTH = 2**40  # libsndfile gives a number near 2**63 for a header without a length
MPEG_FRAME_SAMPLES = 1_152  # an MPEG header's length is a whole number of frames; decoders drop a part of the last
SEEKABLE = re.compile(r"PCM_\w+|FLOAT|DOUBLE|[UA]LAW")  # subtypes whose samples do not depend on where reading starts


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
    "out_of_range": f"the part begins at or after the end of the file, or ends more than {MISSING_S} s after it",
    "bad_header": "the header states a sample rate or a number of channels that no audio has",
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

    A part is cut at the file's own rate, each edge at the nearest sample, and then resampled: the result is that of
    decoding the whole file, cutting it and resampling the cut. The rest of the file is not held.

    Args:
        data: a whole encoded file: what libsndfile reads (FLAC, WAV, Ogg, MP3, ...), else what ffmpeg does.
        sample_rate_hz: wanted rate; other rates are resampled with soxr HQ.
        timeout_s: most seconds to take.
        start_s: where the part begins, in seconds from the start of the file.
        end_s: where the part ends; 0 is the end of the file.

    Returns:
        int16 array (T,), channels averaged.

    Raises:
        AudioError: with the reason, when the bytes are not audio that can be used.
    """
    if not data:
        raise AudioError("empty", "0 bytes")
    if len(data) > MAX_BYTES:
        raise AudioError("too_large", f"{len(data)} bytes")
    part = Part(start_s, end_s)
    if what := part.impossible():
        raise AudioError("out_of_range", what)
    if what := containers.bad_header(data):
        raise AudioError("bad_header", what)
    if what := containers.cut_short(data):
        raise AudioError("truncated", what)
    samples = _decode(data, _Request(sample_rate_hz, timeout_s, part))
    if len(samples) == 0:
        raise AudioError("zero_length", f"no sample at {sample_rate_hz} Hz")
    return samples


class _Request(NamedTuple):
    """What is wanted of a file."""

    sample_rate_hz: int
    timeout_s: float
    part: Part


class _Bytes(io.BytesIO):
    """Bytes as a file. A broken header makes libsndfile seek to before their start, which is no error there."""

    def seek(self, place: int, whence: int = 0, /) -> int:
        return super().seek(max(0, place) if whence == 0 else place, whence)


class _Sound(soundfile.SoundFile):
    """A sound file read front to back: without the seek after each read, which FLAC of unknown length does not take."""

    def seekable(self) -> bool:
        return False


def _decode(data: bytes, request: _Request) -> np.ndarray:
    """Decode what libsndfile knows, and else with ffmpeg; int16 (T,)."""
    try:
        file = _Sound(_Bytes(data))
    except soundfile.LibsndfileError as error:
        return _decode_otherwise(data, request, error.error_string)
    with file:
        if "MPEG" in file.subtype and not mpeg.states_length(data):
            return _decode_stream(data, file, request)
        return _read(file, request, stated=file.frames if file.frames < UNKNOWN_LENGTH else 0)


def _decode_stream(data: bytes, file: _Sound, request: _Request) -> np.ndarray:
    """Decode MPEG audio without a header that states its length to its end; int16 (T,).

    libsndfile stops at a length that it guesses from the size of the file. A pipe has no size: there it reads to the end.
    """
    frames = mpeg.frames(data)
    if frames is None:  # frames of free format have one size, so that the guess is good
        return _read(file, request, stated=0)
    if frames.lacking:
        raise AudioError("truncated", f"the last frame lacks {frames.lacking} bytes")
    with mpeg.piped(frames.stream) as descriptor, _Sound(descriptor, closefd=False) as stream:
        return _read(stream, request, stated=frames.num_samples)


def _read(file: soundfile.SoundFile, request: _Request, stated: int) -> np.ndarray:
    """Read mono int16 samples (T,) at the wanted rate. What is held is what is kept, and one block as it was.

    `stated` is the number of samples that the header states, 0 when it does not.
    """
    try:
        blocks = _blocks(file, request, stated)
        if file.samplerate != request.sample_rate_hz:
            blocks = _resample(blocks, file.samplerate, request.sample_rate_hz)
        kept = [to_int16(block) for block in blocks]
    except soundfile.LibsndfileError as error:
        raise AudioError("truncated", f"cannot be decoded to its end: {error.error_string}") from error
    return kept[0] if len(kept) == 1 else np.concatenate(kept or [np.zeros(0, np.int16)])


def _blocks(file: soundfile.SoundFile, request: _Request, stated: int) -> Iterator[np.ndarray]:
    """Yield mono samples (T,) of a part: int16 where the file has just those, else float32."""
    started = time.monotonic()
    first, last = _edges(file.samplerate, request.part, stated)
    plain, odd = file.subtype == "PCM_16" and file.channels == 1, file.subtype in ("FLOAT", "DOUBLE")
    most = MAX_DURATION_S * file.samplerate
    end = last if last is not None else file.frames and first + most + 1
    size = min(BLOCK_S * file.samplerate, BLOCK_VALUES // file.channels)
    place = file.seek(first) if first and stated and SEEKABLE.fullmatch(file.subtype) else 0
    while place < end:
        block = file.read(min(size, end - place), "int16" if plain else "float32", always_2d=True)
        if not len(block):
            break
        place += len(block)
        if place - first > most:
            raise AudioError("too_long", f"more than {MAX_DURATION_S} s were decoded")
        if time.monotonic() - started > request.timeout_s:
            raise AudioError("timeout", f"not decoded within {request.timeout_s} s")
        if len(block := block[max(0, first - place + len(block)) :]):  # what lies before the part is dropped
            yield block[:, 0] if file.channels == 1 else (_clean(block) if odd else block).mean(axis=1)
    if place + (MPEG_FRAME_SAMPLES if "MPEG" in file.subtype else 0) < min(stated, end):
        raise AudioError("truncated", f"{stated} samples are stated, {place} could be decoded")
    if not stated and place < end and (what := request.part.outside(file.samplerate, place)):
        raise AudioError("out_of_range", what)


def _edges(rate_hz: int, part: Part, stated: int) -> tuple[int, int | None]:
    """Return the edges of a part, as `Part.edges`. Raises before anything is allocated for seconds of absurd length."""
    if what := containers.bad_rate(rate_hz):
        raise AudioError("bad_header", what)
    if stated and (what := part.outside(rate_hz, stated)):
        raise AudioError("out_of_range", what)
    first, last = part.edges(rate_hz, stated)
    if last is not None and last - first > MAX_DURATION_S * rate_hz:
        whole = f"{stated / rate_hz:.0f} s are stated, " if stated else ""
        raise AudioError("too_long", f"{whole}{(last - first) / rate_hz:.0f} s are wanted")
    return first, last


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


def _decode_otherwise(data: bytes, request: _Request, said: str) -> np.ndarray:
    """Decode with ffmpeg what libsndfile does not know, where it looks like audio; int16 (T,)."""
    bad = "truncated" if KNOWN_START.match(data) else "not_audio"
    if not ffmpeg.may_read(data):
        raise AudioError(bad, f"begins with {data[:8]!r}: {said}")
    try:
        with ffmpeg.decoded(data, request.timeout_s) as file:
            return _read(file, request, stated=0)
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
    return np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0).clip(-MAX_FLOAT, MAX_FLOAT)
