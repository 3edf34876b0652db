"""MPEG audio streams (MP3): whether a stream states its length, and the positions of its frames.

A frame is a header of four bytes, its side information and its data; ISO/IEC 11172-3 and 13818-3 give the tables below.
The first frame of most files holds no sound but the number of frames: a Xing, Info or VBRI header.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import NamedTuple

LAYER_1, LAYER_2, LAYER_3 = 3, 2, 1  # codes in the header
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
MIN_RUN = 3  # frames in a row that show the start of a stream, or its continuation after other data
ID3_HEADER_BYTES = 10


def states_length(data: bytes) -> bool:
    """Return whether the first frame states the number of frames. If not, decoders estimate it from the size of the file."""
    position = _after_id3(data)
    position = position if _frame_bytes(data, position) >= 0 else _next(data, position)
    if position < 0:
        return False
    version_1, mono = data[position + 1] >> 3 & 3 == VERSION_1, data[position + 3] >> 6 == 3
    side_bytes = (17 if mono else 32) if version_1 else (9 if mono else 17)
    for crc_bytes in (0, 2):
        tag = position + HEADER_BYTES + crc_bytes + side_bytes
        if data[tag : tag + 4] in (b"Xing", b"Info"):
            counted = int.from_bytes(data[tag + 4 : tag + 8], "big") & 1
            return bool(counted and int.from_bytes(data[tag + 8 : tag + 12], "big"))
    return data[position + HEADER_BYTES + 32 :][:4] == b"VBRI"


class Frames(NamedTuple):
    """The frames of a file, without other data before, between and after them."""

    stream: bytes
    num_samples: int  # of each channel
    lacking: int  # bytes that the last frame lacks; 0 when it is complete


def frames(data: bytes) -> Frames | None:
    """Return the frames of a whole file; None when there is no run of frames, or they state no size (free format)."""
    sizes = {position: _frame_bytes(data, position) for position in _positions(data)}
    if not all(sizes.values()) or not sizes:
        return None
    last = max(sizes)
    stream = b"".join([data[position : position + size] for position, size in sizes.items()])
    return Frames(stream, len(sizes) * _frame_samples(data[last + 1]), max(0, last + sizes[last] - len(data)))


@contextmanager
def piped(stream: bytes) -> Iterator[int]:
    """Open a file descriptor that gives bytes, has no size and cannot seek."""
    reading, writing = os.pipe()
    writer = threading.Thread(target=_write, args=(writing, stream))
    writer.start()
    try:
        yield reading
    finally:
        os.close(reading)  # if there is more, the writer ends with a broken pipe
        writer.join()


def _write(descriptor: int, stream: bytes) -> None:
    with suppress(BrokenPipeError), open(descriptor, "wb") as pipe:
        pipe.write(stream)


def _positions(data: bytes) -> Iterator[int]:
    """Yield the positions of frames, and skip other data between them. Ends at a frame of free format."""
    position = _after_id3(data)
    if _frame_bytes(data, position):
        position = _next(data, position)
    while position >= 0:
        yield position
        size = _frame_bytes(data, position)
        if not size:
            return
        after = position + size
        position = after if _follows(data, position, after) else _next(data, _after_id3(data, after), like=position)


def _next(data: bytes, position: int, like: int | None = None) -> int:
    """Return the position of the next run of frames, or -1; with `like`, only of the stream of the frame at `like`."""
    while (position := data.find(b"\xff", position)) >= 0:
        if (like is None or _follows(data, like, position)) and _is_run(data, position):
            return position
        position += 1
    return -1


def _is_run(data: bytes, position: int) -> bool:
    """Return whether a run of frames begins at a position. Two in a row also occur by chance, in a cover image."""
    for _ in range(MIN_RUN - 1):
        after = position + _frame_bytes(data, position)
        if after <= position or not _follows(data, position, after):
            return False
        position = after
    return True


def _follows(data: bytes, position: int, after: int) -> bool:
    """Return whether a frame of the same stream as the frame at `position` begins at `after`."""
    return (
        _frame_bytes(data, after) >= 0
        and not (data[position + 1] ^ data[after + 1]) & VERSION_AND_LAYER
        and not (data[position + 2] ^ data[after + 2]) & RATE
    )


def _frame_bytes(data: bytes, position: int) -> int:
    """Return the size that the header at a position states; 0 for free format, -1 when there is no header."""
    whole = position + HEADER_BYTES <= len(data) and data[position] == 0xFF
    return _stated_bytes(data[position + 1], data[position + 2]) if whole else -1


@lru_cache(maxsize=2**16)
def _stated_bytes(second: int, third: int) -> int:
    """Return the size of a frame from two bytes of its header; 0 for free format, -1 when they belong to no header."""
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


def _after_id3(data: bytes, position: int = 0) -> int:
    """Return the end of the ID3v2 tags at a position; their sizes are numbers of 7 bits a byte."""
    while data[position : position + 3] == b"ID3" and len(data) >= position + ID3_HEADER_BYTES:
        a, b, c, d = data[position + 6 : position + ID3_HEADER_BYTES]
        position += ID3_HEADER_BYTES + (a << 21 | b << 14 | c << 7 | d)
    return position
