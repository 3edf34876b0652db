"""What the headers of sound files state: rates and channels that cannot be, and more bytes than a file holds."""

import struct
from typing import Literal

MIN_RATE_HZ, MAX_RATE_HZ, MAX_CHANNELS = 1_000, 400_000, 1_024  # others are damage
CHUNKED = {b"RIFF": b"data", b"RIFX": b"data", b"RF64": b"data", b"FORM": b"SSND", b"caff": b"data"}  # of samples
MAX_CHUNKS = 1_000  # looked at; there are a handful
STREAMED = 0x7FFF0000  # sizes from here on are what writers to a pipe leave in the header; files are smaller
OGG_END_OF_STREAM = 4  # flag in a page header


def bad_rate(rate_hz: int) -> str:
    """Return what is wrong with a sample rate, or ''."""
    return "" if MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ else f"states {rate_hz} samples a second"


def bad_header(data: bytes) -> str:
    """Return what no audio has in the header of a WAV file, or '': libsndfile refuses some without a reason."""
    place, size = _chunk(data, b"fmt ") if data[:4] == b"RIFF" and data[8:12] == b"WAVE" else (0, 0)
    if size < 16 or place + 16 > len(data):
        return ""
    channels, rate_hz = struct.unpack_from("<HI", data, place + 2)
    return bad_rate(rate_hz) if 1 <= channels <= MAX_CHANNELS else f"states {channels} channels"


def cut_short(data: bytes) -> str:
    """Return how an uncompressed or Ogg file holds less than it states, or '': libsndfile reads what is there."""
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
            return "the last Ogg page does not end the stream"
    if len(data) - place < stated < STREAMED:
        return f"header states {stated} bytes, the file holds {len(data) - place} of them"
    return ""


def _chunk(data: bytes, name: bytes) -> tuple[int, int]:
    """Return where the first chunk of a name begins, after its header, and the size it states; (0, 0): none."""
    order: Literal["little", "big"] = "little" if data[:4] in (b"RIFF", b"RF64") else "big"
    place, width, even = (8, 8, 1) if data[:4] == b"caff" else (12, 4, 2)
    for _ in range(MAX_CHUNKS):
        size = int.from_bytes(data[place + 4 : place + 4 + width], order)
        if data[place : place + 4] == name and place + 4 + width <= len(data):
            return place + 4 + width, size
        place += 4 + width + size + size % even  # chunks begin at even places
    return 0, 0
