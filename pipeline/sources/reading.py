"""Where a clip's audio lies -> its bytes, and its samples."""

from functools import lru_cache
from threading import Lock

import numpy as np
import pyarrow as pa

from pipeline import audio, storage
from pipeline.sources import parquet
from pipeline.sources.clip import Clip

PLACE = (
    "uri",
    "offset",
    "size",
    "fault",
    "cut_start_s",
    "cut_end_s",
)  # the fields of a clip that say where its audio lies


def read_bytes(uri: str, offset: int = -1, size: int = -1, fault: str = "") -> bytes:
    """Read the encoded audio of a clip, given its place as in `Clip`. Raises AudioError when there is none."""
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
        raise audio.AudioError("missing", str(error)) from error
    except storage.TooLarge as error:
        raise audio.AudioError("too_large", str(error)) from error
    except (OSError, pa.ArrowException) as error:
        raise audio.AudioError("unreadable", str(error)) from error
    if data is None:
        raise audio.AudioError("missing", f"row {offset} of {uri} has no audio")
    return data


def read_samples(clip: Clip, sample_rate_hz: int = audio.SAMPLE_RATE_HZ) -> np.ndarray:
    """Read and decode the audio of a clip; int16 (T,). Raises AudioError for whatever is wrong with it."""
    return read_place(
        clip.uri, clip.offset, clip.size, clip.fault, clip.cut_start_s, clip.cut_end_s, sample_rate_hz=sample_rate_hz
    )


def read_place(
    uri: str,
    offset: int = -1,
    size: int = -1,
    fault: str = "",
    cut_start_s: float = 0.0,
    cut_end_s: float = 0.0,
    *,
    sample_rate_hz: int = audio.SAMPLE_RATE_HZ,
) -> np.ndarray:
    """Read and decode what lies at a place, the fields of `PLACE`; int16 (T,). Raises AudioError."""
    if not (cut_start_s or cut_end_s):
        return audio.decode(read_bytes(uri, offset, size, fault), sample_rate_hz)
    with _one_reads:  # the clips of one recording follow each other, and threads ask for them at once
        data = _recording(uri)
    return audio.decode(data, sample_rate_hz, start_s=cut_start_s, end_s=cut_end_s)


_one_reads = Lock()


@lru_cache(maxsize=1)
def _recording(uri: str) -> bytes:
    """Keep the recording that clips are cut out of: from object storage each read costs a transfer."""
    return read_bytes(uri)
