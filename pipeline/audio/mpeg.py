"""MPEG audio streams (MP3): whether one states its length, and where its frames begin and end.

A frame is a header of four bytes, its side information and its data; ISO/IEC 11172-3 and 13818-3 give the tables below.
The first frame of most files holds no sound but the number of frames: a Xing, Info or VBRI header.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import NamedTuple

LAYER_1, LAYER_2, LAYER_3 = 3, 2, 1  # as the header has them
VERSION_1, RESERVED_VERSION = 3, 1
BITRATES_KBPS = {  # (version 1, layer) -> by the index in the header; layers II and III of versions 2 and 2.5 are alike
    (True, LAYER_1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, LAYER_2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, LAYER_3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, LAYER_1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, LAYER_2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, LAYER_3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # by version
HEADER_BYTES = 4
VERSION_AND_LAYER, RATE = 0xFE, 0x0C  # bits of a header's second and third byte, which all frames of a stream share
RUN = 3  # frames by which a stream is known where it begins, or goes on after something else
ID3_HEADER_BYTES = 10


def states_length(data: bytes) -> bool:
    """Return whether the first frame of a whole file says how many frames follow; without, decoders guess by its size."""
    place = _after_id3(data)
    place = place if _frame_bytes(data, place) >= 0 else _next(data, place)
    if place < 0:
        return False
    version_1, mono = data[place + 1] >> 3 & 3 == VERSION_1, data[place + 3] >> 6 == 3
    side_bytes = (17 if mono else 32) if version_1 else (9 if mono else 17)
    for crc_bytes in (0, 2):
        tag = place + HEADER_BYTES + crc_bytes + side_bytes
        if data[tag : tag + 4] in (b"Xing", b"Info"):
            counted = int.from_bytes(data[tag + 4 : tag + 8], "big") & 1
            return bool(counted and int.from_bytes(data[tag + 8 : tag + 12], "big"))
    return data[place + HEADER_BYTES + 32 :][:4] == b"VBRI"


class Frames(NamedTuple):
    """The frames of a file without what lies before, between and after them."""

    stream: bytes
    num_samples: int  # that they hold, of each channel
    lacking: int  # bytes that the last frame lacks; 0 when it is whole


def frames(data: bytes) -> Frames | None:
    """Return the frames of a whole file; None when there is no run of them, or they state no size: free format."""
    sizes = {place: _frame_bytes(data, place) for place in _places(data)}
    if not all(sizes.values()) or not sizes:
        return None
    last = max(sizes)
    stream = b"".join([data[place : place + size] for place, size in sizes.items()])
    return Frames(stream, len(sizes) * _frame_samples(data[last + 1]), max(0, last + sizes[last] - len(data)))


@contextmanager
def piped(stream: bytes) -> Iterator[int]:
    """Give a file descriptor to read bytes from that has no size and no place to seek."""
    reading, writing = os.pipe()
    writer = threading.Thread(target=_write, args=(writing, stream))
    writer.start()
    try:
        yield reading
    finally:
        os.close(reading)  # should there be more, the writer ends for want of a reader
        writer.join()


def _write(descriptor: int, stream: bytes) -> None:
    with suppress(BrokenPipeError), open(descriptor, "wb") as pipe:
        pipe.write(stream)


def _places(data: bytes) -> Iterator[int]:
    """Yield where frames begin; what lies between them is passed over. The walk ends at a frame of free format."""
    place = _after_id3(data)
    if _frame_bytes(data, place):
        place = _next(data, place)
    while place >= 0:
        yield place
        size = _frame_bytes(data, place)
        if not size:
            return
        after = place + size
        place = after if _follows(data, place, after) else _next(data, _after_id3(data, after), like=place)


def _next(data: bytes, place: int, like: int | None = None) -> int:
    """Return where the next run of frames begins, of the stream of the frame at `like` where that is given, or -1."""
    while (place := data.find(b"\xff", place)) >= 0:
        if (like is None or _follows(data, like, place)) and _is_run(data, place):
            return place
        place += 1
    return -1


def _is_run(data: bytes, place: int) -> bool:
    """Return whether enough frames begin at a place, one after the other: two are found by chance in a cover image."""
    for _ in range(RUN - 1):
        after = place + _frame_bytes(data, place)
        if after <= place or not _follows(data, place, after):
            return False
        place = after
    return True


def _follows(data: bytes, place: int, after: int) -> bool:
    """Return whether a frame of the same stream as the one at `place` begins at `after`."""
    return (
        _frame_bytes(data, after) >= 0
        and not (data[place + 1] ^ data[after + 1]) & VERSION_AND_LAYER
        and not (data[place + 2] ^ data[after + 2]) & RATE
    )


def _frame_bytes(data: bytes, place: int) -> int:
    """Return the size that the header at a place states; 0 for free format, -1 when there is no header."""
    whole = place + HEADER_BYTES <= len(data) and data[place] == 0xFF
    return _stated_bytes(data[place + 1], data[place + 2]) if whole else -1


@lru_cache(maxsize=2**16)
def _stated_bytes(second: int, third: int) -> int:
    """Return the size of a frame from two bytes of its header; 0 for free format, -1 when they are of no header."""
    version, layer = second >> 3 & 3, second >> 1 & 3
    bitrate, rate, padding = third >> 4, third >> 2 & 3, third >> 1 & 1
    if second < 0xE0 or version == RESERVED_VERSION or layer == 0 or bitrate == 15 or rate == 3:
        return -1
    bits_per_s, rate_hz = 1_000 * BITRATES_KBPS[version == VERSION_1, layer][bitrate], RATES_HZ[version][rate]
    if not bits_per_s:
        return 0
    if layer == LAYER_1:
        return (12 * bits_per_s // rate_hz + padding) * 4
    return _frame_samples(second) // 8 * bits_per_s // rate_hz + padding


def _frame_samples(second: int) -> int:
    """Return the samples in a frame from the second byte of its header."""
    version, layer = second >> 3 & 3, second >> 1 & 3
    if layer == LAYER_1:
        return 384
    return 576 if layer == LAYER_3 and version != VERSION_1 else 1_152


def _after_id3(data: bytes, place: int = 0) -> int:
    """Return where the ID3v2 tags at a place end: their sizes are numbers of 7 bits a byte."""
    while data[place : place + 3] == b"ID3" and len(data) >= place + ID3_HEADER_BYTES:
        a, b, c, d = data[place + 6 : place + ID3_HEADER_BYTES]
        place += ID3_HEADER_BYTES + (a << 21 | b << 14 | c << 7 | d)
    return place
