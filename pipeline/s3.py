"""What Arrow's S3 filesystem does not offer: conditional puts, server-side copies, streamed listings, removal without
markers.

An object goes up in one request, so it appears whole or not at all; Arrow's streams end a failed multipart upload by
completing it.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

ATTEMPTS = 10  # of each request, with growing pauses; a store that fails one request in twenty gives up once in 10^13
TIMEOUT_S = 60  # without a byte
LOST_RACE = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


def put(path: str, data: bytes) -> None:
    """Store an object; `path` is bucket/key. Raises OSError when the store refuses."""
    _call("put_object", path, Body=data)


def create(path: str, data: bytes) -> bool:
    """Store an object unless there is one; return whether the object there now holds `data`.

    A put whose answer was lost is tried again and then finds its own object: equal content counts as stored.
    """
    from botocore.exceptions import ClientError

    try:
        _call("put_object", path, Body=data, IfNoneMatch="*")
    except OSError as error:
        cause = error.__cause__
        if isinstance(cause, ClientError) and cause.response["Error"]["Code"] in LOST_RACE:
            return bool(_call("get_object", path)["Body"].read() == data)
        raise
    return True


def copy(source: str, target: str) -> None:
    """Copy an object inside the store. Raises FileNotFoundError when there is none."""
    bucket, _, key = source.partition("/")
    _call("copy_object", target, CopySource={"Bucket": bucket, "Key": key})


def names(folder: str) -> Iterator[str]:
    """Yield the names directly inside a folder, a thousand to a request."""
    bucket, _, prefix = folder.rstrip("/").partition("/")
    prefix = f"{prefix}/" if prefix else ""
    pages = _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
    try:
        for page in pages:
            for item in page.get("CommonPrefixes", []):
                yield item["Prefix"][len(prefix) :].rstrip("/")
            for item in page.get("Contents", []):
                if item["Key"] != prefix:  # a marker that some tools leave for the folder itself
                    yield item["Key"][len(prefix) :]
    except Exception as error:
        raise _translated(error, f"s3://{folder}") from error


def remove(path: str) -> None:
    """Delete an object, or all objects in a folder; absent is fine, and no marker of the folder stays behind."""
    bucket, _, key = path.rstrip("/").partition("/")
    assert key, path
    try:
        pages = _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{key}/")
        found = [{"Key": item["Key"]} for page in pages for item in page.get("Contents", [])]
        doomed = [{"Key": key}, *found]
        for first in range(0, len(doomed), 1000):
            _client().delete_objects(Bucket=bucket, Delete={"Objects": doomed[first : first + 1000], "Quiet": True})
    except Exception as error:
        raise _translated(error, f"s3://{path}") from error


def _call(operation: str, path: str, **arguments: Any) -> dict[str, Any]:
    bucket, _, key = path.partition("/")
    try:
        answer: dict[str, Any] = getattr(_client(), operation)(Bucket=bucket, Key=key, **arguments)
    except Exception as error:
        raise _translated(error, f"s3://{path}") from error
    return answer


def _translated(error: Exception, uri: str) -> Exception:
    """Return the OSError for an error of the store; other errors stay what they are."""
    from botocore.exceptions import BotoCoreError, ClientError

    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
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
