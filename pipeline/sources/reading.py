"""The location of a clip's audio -> its bytes, and its samples.

The faults of a file are AudioErrors. Those of a store, a disk or this machine pass: they are a StoreFault, which ends a
command with exit code 1, and no outcome of a clip.
"""

import unicodedata
from contextlib import suppress
from functools import lru_cache
from threading import Lock
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline import audio, storage
from pipeline.audio import canonical
from pipeline.sources import parquet
from pipeline.sources.clip import AudioLocation, Clip


class CanonicalAudio(NamedTuple):
    """The audio of a clip as a shard holds it."""

    samples: np.ndarray  # int16 (T,) at 32 kHz
    flac: bytes | None  # the bytes as they are, where these are canonical already


def read_samples(clip: Clip, sample_rate_hz: int = audio.SAMPLE_RATE_HZ) -> np.ndarray:
    """Read and decode the audio of a clip; int16 (T,). Raises AudioError with the reason when that fails."""
    return read_audio(clip.location, sample_rate_hz)


def read_audio(location: AudioLocation, sample_rate_hz: int = audio.SAMPLE_RATE_HZ) -> np.ndarray:
    """Read and decode the audio at a location; int16 (T,). Raises AudioError with the reason when that fails."""
    return _decoded(read_encoded(location), location, sample_rate_hz)


def read_alone(location: AudioLocation) -> np.ndarray:
    """Read as `read_audio` at 32 kHz, for one clip: of a part of a recording no other bytes, where its format allows that.

    Where all clips of a recording are read, `read_audio` asks the store less often.
    """
    if not location.whole:
        with suppress(OSError), storage.open_seekable(location.uri) as file:
            samples = audio.decode_part(file, location.cut_start_s, location.cut_end_s)
            if samples is not None and len(samples):
                return samples
    return read_audio(location)


def read_or_reason(location: AudioLocation, sample_rate_hz: int = audio.SAMPLE_RATE_HZ) -> np.ndarray | str:
    """Read and decode the audio at a location; int16 (T,), or the reason why it cannot be used."""
    try:
        return read_audio(location, sample_rate_hz)
    except audio.AudioError as error:
        return error.reason


def read_canonical(location: AudioLocation) -> CanonicalAudio:
    """Read and decode the audio at a location for a shard. Raises AudioError with the reason when that fails."""
    return decode_canonical(read_encoded(location), location)


def decode_canonical(data: bytes, location: AudioLocation) -> CanonicalAudio:
    """Decode the bytes of a location for a shard. Raises AudioError with the reason when that fails."""
    if location.whole and (samples := canonical.decode(data)) is not None:
        return CanonicalAudio(samples, data)
    return CanonicalAudio(_decoded(data, location, audio.SAMPLE_RATE_HZ), None)


def read_encoded(location: AudioLocation) -> bytes:
    """Return the bytes of the file, which may hold more than the clip. Raises AudioError with the reason."""
    if location.whole:
        return read_bytes(*location[:4])
    with _recording_lock:  # threads ask for clips of one recording at the same time
        return _recording(location.uri)


def _decoded(data: bytes, location: AudioLocation, sample_rate_hz: int) -> np.ndarray:
    try:
        return audio.decode(data, sample_rate_hz, start_s=location.cut_start_s, end_s=location.cut_end_s)
    except OSError as error:  # no room for a temporary file, no process, no pipe
        raise storage.fault_of(error, location.uri) or error from error


def read_bytes(uri: str, offset: int = -1, size: int = -1, fault: str = "") -> bytes:
    """Read the encoded audio of a clip; the arguments are fields of `AudioLocation`.

    Raises:
        AudioError: with the reason, when the file is absent, is too large, or cannot be read for its own fault.
        StoreFault: naming the file, when its store, its disk or this machine is at fault.
    """
    if fault:
        reason, _, detail = fault.partition(": ")
        raise audio.AudioError(reason, detail)
    try:
        if offset < 0:
            return storage.read(uri, max_bytes=audio.MAX_BYTES)
        if size >= 0:
            if size > audio.MAX_BYTES:
                raise storage.TooLarge(f"{size} bytes")
            return storage.read(uri, offset, size)
        data = parquet.read_row(uri, offset)
        if data and len(data) > audio.MAX_BYTES:
            raise storage.TooLarge(f"{len(data)} bytes")
    except FileNotFoundError as error:
        if uri != (stored := _stored_name(uri)):
            return read_bytes(stored, offset, size)
        raise audio.AudioError("missing", str(error)) from error
    except storage.TooLarge as error:
        raise audio.AudioError("too_large", str(error)) from error
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and (passing := storage.fault_of(error, uri)):
            raise passing from error
        raise audio.AudioError("unreadable", str(error)) from error
    if data is None:
        raise audio.AudioError("missing", f"row {offset} of {uri} has no audio")
    return data


def _stored_name(uri: str) -> str:
    """Return the other spelling of a name with accents where that is there: macOS takes them off their letters (NFD)."""
    spellings = (unicodedata.normalize(form, uri) for form in ("NFC", "NFD"))
    return next((name for name in spellings if name != uri and storage.exists(name)), uri)


_recording_lock = Lock()


@lru_cache(maxsize=1)
def _recording(uri: str) -> bytes:
    """Keep the recording that clips are cut out of: from object storage each read costs a transfer."""
    return read_bytes(uri)
