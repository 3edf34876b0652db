"""S3 through boto3, for what Arrow's filesystem lacks: conditional puts, server-side copies, streamed listings.

An object appears whole or not at all. One request uploads it; from MAX_REQUEST on, several requests upload its parts and
the last one joins them. (Arrow's output stream publishes an incomplete object when an error ends it. Arrow also leaves
a marker object for every folder.) boto3 repeats a failed request ATTEMPTS times, then `with_retries` repeats the call.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from pipeline.storage.retrying import with_retries

ATTEMPTS = 10  # of each request, before `with_retries` repeats the call
TIMEOUT_S = 60  # without receiving a byte
MAX_REQUEST = 2**30  # bytes; S3 accepts 5 GiB in one request, but a request that fails starts again from the first byte
PART_BYTES = (
    32 * 2**20
)  # boto3 holds ten parts in memory; it makes them larger when S3's limit of 10,000 parts requires it
CONCURRENT_PARTS = 4
NAME_EXISTS_CODES = ("PreconditionFailed", "412")
NOT_FOUND_CODES = ("NoSuchKey", "404")


class NameExists(Exception):
    """A conditional put found an object at its name."""


def put(path: str, data: bytes) -> None:
    """Store an object of any size; `path` is bucket/key. Raises OSError when the store refuses it."""
    if len(data) < MAX_REQUEST:
        with_retries(_call, "put_object", path, Body=data)
    else:
        with_retries(_upload_parts, path, data)


def put_file(path: str, file: str) -> None:
    """Store a local file of any size as an object; it is not held in memory. Raises OSError when the store refuses it."""
    with_retries(_call, "upload_file", path, Filename=file, Config=_multipart_config())


def create(path: str, data: bytes) -> bool:
    """Store an object of at most 5 GiB unless its name exists; return whether the object there now holds `data`.

    When the answer to a put is lost, the put is repeated and finds its own object: equal content counts as stored. A
    store may answer 409 to one of two puts at the same time. That decides nothing: the put is repeated.
    """
    try:
        with_retries(_call, "put_object", path, Body=data, IfNoneMatch="*")
    except NameExists:
        try:
            return with_retries(_read, path) == data
        except FileNotFoundError:  # another writer's object, deleted since
            return False
    return True


def copy(source: str, target: str) -> None:
    """Copy an object of any size inside the store. Raises FileNotFoundError when there is none."""
    bucket, _, key = source.partition("/")
    with_retries(_call, "copy", target, CopySource={"Bucket": bucket, "Key": key}, Config=_multipart_config())


def names(folder: str) -> Iterator[str]:
    """Yield the names directly inside a folder, a thousand to a request."""
    for prefix, page in _pages(folder, Delimiter="/"):
        for item in page.get("CommonPrefixes", []):
            yield item["Prefix"][len(prefix) :].rstrip("/")
        for item in page.get("Contents", []):
            if item["Key"] != prefix:  # some tools leave a marker object for the folder itself
                yield item["Key"][len(prefix) :]


def file_sizes(folder: str) -> Iterator[tuple[str, int]]:
    """Yield the name and the bytes of each object directly inside a folder, a thousand to a request."""
    for prefix, page in _pages(folder, Delimiter="/"):
        yield from ((item["Key"][len(prefix) :], item["Size"]) for item in page.get("Contents", []))


def remove(path: str) -> None:
    """Delete an object, or all objects in a folder and its marker. A name that does not exist is no error."""
    bucket, _, key = path.rstrip("/").partition("/")
    assert key, path
    keys = [key, *with_retries(_all_keys, path)]
    for first in range(0, len(keys), 1000):
        with_retries(_delete, bucket, keys[first : first + 1000])


def _all_keys(folder: str) -> list[str]:
    return [item["Key"] for _, page in _pages(folder) for item in page.get("Contents", [])]


def _pages(folder: str, **options: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the prefix of a folder with each page of its listing, which boto3 has parsed."""
    bucket, _, prefix = folder.rstrip("/").partition("/")
    prefix = f"{prefix}/" if prefix else ""
    with _errors_named(folder):
        for page in _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, **options):
            yield prefix, page


def _delete(bucket: str, keys: list[str]) -> None:
    with _errors_named(bucket):
        objects = [{"Key": key} for key in keys]
        answer = _client().delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
    for fault in answer.get("Errors", []):  # of single objects, in an answer of status 200
        raise OSError(f"s3://{bucket}/{fault['Key']} cannot be deleted: {fault['Code']} {fault.get('Message', '')}")


def _upload_parts(path: str, data: bytes) -> None:
    _call("upload_fileobj", path, Fileobj=io.BytesIO(data), Config=_multipart_config())


def _read(path: str) -> bytes:
    bucket, _, key = path.partition("/")
    with _errors_named(path):
        data: bytes = _client().get_object(Bucket=bucket, Key=key)["Body"].read()
        return data


def _call(operation: str, path: str, **arguments: Any) -> None:
    """Call a method of boto3's client on one object."""
    bucket, _, key = path.partition("/")
    with _errors_named(path):
        getattr(_client(), operation)(Bucket=bucket, Key=key, **arguments)


@contextmanager
def _errors_named(path: str) -> Iterator[None]:
    """Turn an error of boto3 into an OSError or a NameExists that names the object."""
    from botocore.exceptions import BotoCoreError, ClientError

    uri = f"s3://{path}"
    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in NAME_EXISTS_CODES:
            raise NameExists(uri) from error
        if code in NOT_FOUND_CODES:
            raise FileNotFoundError(uri) from error
        raise OSError(f"{uri}: {error}") from error
    except BotoCoreError as error:
        raise OSError(f"{uri}: {error}") from error


def _multipart_config() -> Any:
    """Return how boto3 transfers large objects. It deletes the parts of a transfer that fails."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=MAX_REQUEST, multipart_chunksize=PART_BYTES, max_concurrency=CONCURRENT_PARTS
    )


@lru_cache
def _client() -> Any:
    import boto3  # imported here, because it takes half a second that work on a local disk does not need
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "max_attempts": ATTEMPTS}, connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S
    )
    return boto3.client("s3", config=config)
