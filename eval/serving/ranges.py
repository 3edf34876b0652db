"""Whole files and parts of them by HTTP (RFC 9110, sections 13 and 14), so that players seek.

One range in bytes is answered with that part. Several ranges, other units, and a range of an older version of the file
are answered with the whole file, as the standard allows.
"""

import hashlib
import re
from collections.abc import Mapping

from starlette.responses import Response

from eval.serving.errors import RequestError

ONE_RANGE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.ASCII)
CACHE = "private, max-age=86400"  # a browser asks again after a day, and then by the ETag


def respond(content: bytes, media_type: str, headers: Mapping[str, str]) -> Response:
    """Return the answer to a GET or HEAD of a file that has `content`.

    Args:
        content: of the whole file.
        media_type: of the file.
        headers: of the request, names in lower case.

    Raises:
        RequestError: 416, when no byte of the file lies in the range, or the range cannot be read.
    """
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    shared = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": CACHE}
    if etag in [each.strip().removeprefix("W/") for each in headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=shared)
    wanted = headers.get("range", "")
    if headers.get("if-range", etag) != etag or not wanted.startswith("bytes=") or "," in wanted:
        return Response(content, media_type=media_type, headers=shared)
    first, last = _edges(wanted, len(content))
    shared["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return Response(content[first : last + 1], 206, media_type=media_type, headers=shared)


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
