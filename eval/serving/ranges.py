"""Whole files and parts of them by HTTP (RFC 9110, sections 13 and 14), so that players seek.

One range in bytes is answered with that part. Several ranges, other units, and a range of an older version of the file
are answered with the whole file, as the standard allows. Of a file that is not in memory no other byte is read, and what a
client does not take is not read either: players ask for all that follows and leave when they have enough.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from starlette.responses import Response, StreamingResponse

from eval.serving.errors import RequestError

ONE_RANGE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.ASCII)
PART_BYTES = 256 * 2**10  # read at a time: some ten seconds of FLAC
CACHE = "private, max-age=86400"  # a browser asks again after a day, and then by the ETag


@dataclass(frozen=True, kw_only=True)
class File:
    """A file to send."""

    media_type: str
    size: int
    """Bytes."""
    tag: str
    """Another one where the content is another."""
    read: Callable[[int, int], bytes]
    """Returns so many bytes from a position on. Raises RequestError where they are gone."""


def in_memory(content: bytes, media_type: str, tag: str) -> File:
    """Return a file whose content is at hand."""
    read = lambda first, count: content[first : first + count]  # noqa: E731
    return File(media_type=media_type, size=len(content), tag=tag, read=read)


def respond(file: File, method: str, headers: Mapping[str, str]) -> Response:
    """Return the answer to a GET or HEAD of a file.

    Args:
        file: what is asked for.
        method: of the request; HEAD is answered without reading.
        headers: of the request, names in lower case.

    Raises:
        RequestError: 416, when no byte of the file lies in the range, or the range cannot be read.
    """
    etag = f'"{file.tag}"'
    shared = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": CACHE}
    if etag in [each.strip().removeprefix("W/") for each in headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=shared)
    wanted = headers.get("range", "")
    status, first, last = 200, 0, file.size - 1
    if headers.get("if-range", etag) == etag and wanted.startswith("bytes=") and "," not in wanted:
        status, (first, last) = 206, _edges(wanted, file.size)
        shared["Content-Range"] = f"bytes {first}-{last}/{file.size}"
    shared["Content-Length"] = str(last + 1 - first)
    if method == "HEAD":
        return Response(status_code=status, media_type=file.media_type, headers=shared)
    parts = _parts(file, first, last)
    beginning = next(parts, b"")  # here an error still has an answer of its own
    if first + len(beginning) > last:
        return Response(beginning, status, media_type=file.media_type, headers=shared)
    return StreamingResponse(chain([beginning], parts), status, media_type=file.media_type, headers=shared)


def _parts(file: File, first: int, last: int) -> Iterator[bytes]:
    for start in range(first, last + 1, PART_BYTES):
        yield file.read(start, min(PART_BYTES, last + 1 - start))


def _edges(wanted: str, size: int) -> tuple[int, int]:
    """Return the first and the last byte of a range."""
    found = ONE_RANGE.fullmatch(wanted)
    start, end = found.groups() if found else ("", "")
    if start:
        first, last = int(start), min(int(end) if end else size - 1, size - 1)
    elif end:
        first, last = max(0, size - int(end)), size - 1
    else:
        first, last = size, size - 1
    if first > last:
        message = f"Range {wanted[:80]!r}: the file has the bytes 0 to {size - 1}; write bytes=0-99."
        raise RequestError(416, message, {"Content-Range": f"bytes */{size}"})
    return first, last
