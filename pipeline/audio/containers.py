"""Checks of the headers of sound files: impossible rates and channels, and more bytes than a file holds."""

import struct
from typing import Literal

MIN_RATE_HZ, MAX_RATE_HZ, MAX_CHANNELS = 1_000, 400_000, 1_024  # others are damage
CHUNKED = {b"RIFF": b"data", b"RIFX": b"data", b"RF64": b"data", b"FORM": b"SSND", b"caff": b"data"}  # of samples
MAX_CHUNKS = 1_000  # that are read; there are a handful
MIN_STREAMED = 0x7FFF0000  # larger sizes come from writers to a pipe, which do not know the size; files are smaller
OGG_END_OF_STREAM = 4  # flag in a page header


def bad_rate(rate_hz: int) -> str:
    """Return why a sample rate is impossible, or ''."""
    return "" if MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ else f"states {rate_hz} samples a second"


def bad_header(data: bytes) -> str:
    """Return what is impossible in the header of a WAV file, or ''; libsndfile gives no reason for some of it."""
    position, size = _chunk(data, b"fmt ") if data[:4] == b"RIFF" and data[8:12] == b"WAVE" else (0, 0)
    if size < 16 or position + 16 > len(data):
        return ""
    channels, rate_hz = struct.unpack_from("<HI", data, position + 2)
    return bad_rate(rate_hz) if 1 <= channels <= MAX_CHANNELS else f"states {channels} channels"


def cut_short(data: bytes) -> str:
    """Return why an uncompressed or Ogg file is not whole, or ''; libsndfile reads as much as is there."""
    start, position, stated = data[:4], 0, 0
    if start in CHUNKED:
        position, stated = _chunk(data, CHUNKED[start])
        if start == b"RF64" and data[12:16] == b"ds64":  # sizes beyond 32 bits stand there
            stated = int.from_bytes(data[28:36], "little")
    if start == b"RIFF" and data[8:12] == b"AVI ":
        position, stated = 8, int.from_bytes(data[4:8], "little")
    elif start == b".snd":
        position, stated = int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:12], "big")
    elif start == b"OggS":
        last = data.rfind(b"OggS")
        if len(data) < last + 6 or not data[last + 5] & OGG_END_OF_STREAM:
            return "the last Ogg page does not end the stream"
    if len(data) - position < stated < MIN_STREAMED:
        return f"header states {stated} bytes, the file holds {len(data) - position} of them"
    return ""


def _chunk(data: bytes, name: bytes) -> tuple[int, int]:
    """Return the position of the first chunk of a name, after its header, and the size it states; (0, 0) for none."""
    order: Literal["little", "big"] = "little" if data[:4] in (b"RIFF", b"RF64") else "big"
    position, width, even = (8, 8, 1) if data[:4] == b"caff" else (12, 4, 2)
    for _ in range(MAX_CHUNKS):
        size = int.from_bytes(data[position + 4 : position + 4 + width], order)
        if data[position : position + 4] == name and position + 4 + width <= len(data):
            return position + 4 + width, size
        position += 4 + width + size + size % even  # chunks begin at even positions
    return 0, 0
