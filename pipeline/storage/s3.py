"""What Arrow's S3 filesystem does not offer: conditional puts, server-side copies, streamed listings, removal without
markers.

An object appears whole or not at all: it goes up in one request, or, from MAX_REQUEST on, in parts that the last request
makes one. Arrow's streams publish what they have when an error ends them. boto3 tries a request again while
its budget lasts, and `patiently` goes on from there.
"""

import io
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from pipeline.storage.retrying import patiently

ATTEMPTS = 10  # of each request before `patiently` has a say
TIMEOUT_S = 60  # without a byte
MAX_REQUEST = 2**30  # bytes; S3 takes 5 GiB in one request, but what breaks in it is sent again from the start
PART_BYTES = 32 * 2**20  # boto3 holds ten parts in memory, and makes them larger where S3's 10,000 are too few
CONCURRENT_PARTS = 4
LOST_RACE = {"PreconditionFailed", "412"}


class Taken(Exception):
    """A conditional put found its name taken."""


def put(path: str, data: bytes) -> None:
    """Store an object of any size; `path` is bucket/key. Raises OSError when the store refuses."""
    patiently(_put, path, data)


def create(path: str, data: bytes) -> bool:
    """Store an object of at most 5 GiB unless there is one; return whether the object there now holds `data`.

    A put whose answer was lost is tried again and then finds its own object: equal content counts as stored. A store
    that sees two puts at once may refuse one with 409, which settles nothing: it is tried again like a passing fault.
    """
    try:
        patiently(_call, "put_object", path, {"Body": data, "IfNoneMatch": "*"})
    except Taken:
        try:
            return bool(patiently(_read, path) == data)
        except FileNotFoundError:  # taken by another, and cleared away since
            return False
    return True


def copy(source: str, target: str) -> None:
    """Copy an object of any size inside the store. Raises FileNotFoundError when there is none."""
    bucket, _, key = source.partition("/")
    patiently(_call, "copy", target, {"CopySource": {"Bucket": bucket, "Key": key}, "Config": _in_parts()})


def names(folder: str) -> Iterator[str]:
    """Yield the names directly inside a folder, a thousand to a request."""
    for prefix, page in _pages(folder):
        for item in page.get("CommonPrefixes", []):
            yield item["Prefix"][len(prefix) :].rstrip("/")
        for item in page.get("Contents", []):
            if item["Key"] != prefix:  # a marker that some tools leave for the folder itself
                yield item["Key"][len(prefix) :]


def file_sizes(folder: str) -> Iterator[tuple[str, int]]:
    """Yield name and bytes of each object directly inside a folder, a thousand to a request."""
    for prefix, page in _pages(folder):
        yield from ((item["Key"][len(prefix) :], item["Size"]) for item in page.get("Contents", []))


def _pages(folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the prefix of a folder with each page of its listing."""
    bucket, _, prefix = folder.rstrip("/").partition("/")
    prefix = f"{prefix}/" if prefix else ""
    pages = _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
    try:
        for page in pages:
            yield prefix, page
    except Exception as error:
        raise _translated(error, f"s3://{folder}") from error


def remove(path: str) -> None:
    """Delete an object, or all objects in a folder; absent is fine, and no marker of the folder stays behind."""
    bucket, _, key = path.rstrip("/").partition("/")
    assert key, path
    doomed = [{"Key": key}, *({"Key": name} for name in patiently(_all_keys, bucket, f"{key}/"))]
    for first in range(0, len(doomed), 1000):
        patiently(_delete, bucket, doomed[first : first + 1000])


def _all_keys(bucket: str, prefix: str) -> list[str]:
    try:
        pages = _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]
    except Exception as error:
        raise _translated(error, f"s3://{bucket}/{prefix}") from error


def _delete(bucket: str, objects: list[dict[str, str]]) -> None:
    try:
        _client().delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
    except Exception as error:
        raise _translated(error, f"s3://{bucket}") from error


def _put(path: str, data: bytes) -> None:
    if len(data) < MAX_REQUEST:
        _call("put_object", path, {"Body": data})
    else:
        _call("upload_fileobj", path, {"Fileobj": io.BytesIO(data), "Config": _in_parts()})


def _in_parts() -> Any:
    """Return how boto3 moves large objects. It takes back the parts of a transfer that fails."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=MAX_REQUEST, multipart_chunksize=PART_BYTES, max_concurrency=CONCURRENT_PARTS
    )


def _call(operation: str, path: str, arguments: dict[str, Any]) -> dict[str, Any]:
    bucket, _, key = path.partition("/")
    try:
        answer: dict[str, Any] = getattr(_client(), operation)(Bucket=bucket, Key=key, **arguments)
    except Exception as error:
        raise _translated(error, f"s3://{path}") from error
    return answer


def _read(path: str) -> bytes:
    bucket, _, key = path.partition("/")
    try:
        return bytes(_client().get_object(Bucket=bucket, Key=key)["Body"].read())
    except Exception as error:
        raise _translated(error, f"s3://{path}") from error


def _translated(error: Exception, uri: str) -> Exception:
    """Return the OSError for an error of the store; other errors stay what they are."""
    from botocore.exceptions import BotoCoreError, ClientError

    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        if code in LOST_RACE:
            return Taken(uri)
        return FileNotFoundError(uri) if code in ("NoSuchKey", "404") else OSError(f"{uri}: {error}")
    return OSError(f"{uri}: {error}") if isinstance(error, BotoCoreError) else error


@lru_cache
def _client() -> Any:
    import boto3  # here: half a second that work on local disk can do without
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "max_attempts": ATTEMPTS}, connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S
    )
    return boto3.client("s3", config=config)
