"""Objects that are too large for one request: moved in parts, whole or not at all, and no part is left behind."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from tenacity import stop_after_attempt

from pipeline import storage
from pipeline.dataset import commit
from pipeline.storage import retrying
from pipeline.storage import s3 as store
from tests.support.faults import FaultyProxy

MIB = 2**20
PARTS = 3


@pytest.fixture
def root(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder in which objects from 1 MiB on are large, in the smallest parts that S3 takes."""
    monkeypatch.setattr(store, "MAX_REQUEST", MIB)
    monkeypatch.setattr(store, "PART_BYTES", 5 * MIB)
    return f"{s3}/parts/{tmp_path.name}"


@pytest.fixture
def large() -> bytes:
    return os.urandom((PARTS - 1) * 5 * MIB + 1000)


def client(endpoint: str | None = None, attempts: int = 10) -> Any:
    config = Config(retries={"mode": "standard", "total_max_attempts": attempts})
    return boto3.client("s3", endpoint_url=endpoint, config=config)


def parts(uri: str) -> int:
    """Return in how many parts an object was stored; 0 for one request."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    tag = client().head_object(Bucket=bucket, Key=key)["ETag"].strip('"')
    return int(tag.partition("-")[2] or 0)


def left_open(root: str) -> list[str]:
    uploads = client().list_multipart_uploads(Bucket="corpus").get("Uploads", [])
    return [upload["Key"] for upload in uploads if f"s3://corpus/{upload['Key']}".startswith(f"{root}/")]


def test_large_objects_go_up_and_are_moved_in_parts(root: str, large: bytes) -> None:
    for size, expected in ((MIB - 1, 0), (MIB, 1), (len(large), PARTS)):
        one, other = f"{root}/{size}", f"{root}/{size} moved"
        storage.publish(one, large[:size])
        assert parts(one) == expected and storage.read(one) == large[:size]
        storage.move(one, other)
        assert parts(other) == expected and storage.read(other) == large[:size]
        assert not storage.exists(one)
        storage.move(one, other)  # done already
    with pytest.raises(FileNotFoundError):
        storage.move(f"{root}/absent", f"{root}/never")
    assert not left_open(root)


def test_a_large_shard_is_committed(root: str, large: bytes) -> None:
    files = {"00003.tar": large, "00003.parquet": b"ledger", "00003_stats.json": b"{}"}
    commit.publish(root, "00003", {name: [content] for name, content in files.items()})
    assert {name: storage.read(f"{root}/{name}") for name in files} == files
    assert parts(f"{root}/00003.tar") == PARTS
    commit.clean_up(root)
    assert storage.list_names(root) == sorted(files)


@pytest.mark.parametrize("seed", range(2))
def test_broken_requests_are_retried(root: str, large: bytes, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ("internal", "slow_down", "reset")  # an upload whose first answer is cut off stays open, with no part in it
    with FaultyProxy(os.environ["AWS_ENDPOINT_URL"], share=0.3, seed=seed, kinds=kinds) as proxy:
        monkeypatch.setattr(store, "_client", lambda: client(proxy.endpoint))
        storage.publish(f"{root}/one", large)
        storage.move(f"{root}/one", f"{root}/other")
        assert proxy.injected, "no fault: nothing is proved"
    assert storage.read(f"{root}/other") == large and not left_open(root)


@pytest.mark.parametrize(
    ("operation", "act"),
    [
        ("UploadPart", lambda root, data: storage.publish(f"{root}/object", data)),
        ("CompleteMultipartUpload", lambda root, data: storage.publish(f"{root}/object", data)),
        ("UploadPartCopy", lambda root, data: storage.move(f"{root}/source", f"{root}/object")),
    ],
)
def test_what_breaks_in_the_middle_changes_nothing(
    root: str, large: bytes, operation: str, act: Callable[[str, bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store refuses everything from some request on, and works again when boto3 deletes the parts."""
    storage.publish(f"{root}/object", b"old")
    storage.publish(f"{root}/source", large)
    monkeypatch.setattr(retrying.with_retries, "stop", stop_after_attempt(1))
    with FaultyProxy(os.environ["AWS_ENDPOINT_URL"], share=0.0, kinds=("internal", "reset")) as proxy:
        ours = client(proxy.endpoint, attempts=1)
        ours.meta.events.register(f"before-send.s3.{operation}", lambda **_: setattr(proxy, "share", 1.0))
        ours.meta.events.register("before-send.s3.AbortMultipartUpload", lambda **_: setattr(proxy, "share", 0.0))
        monkeypatch.setattr(store, "_client", lambda: ours)
        with pytest.raises(OSError, match="s3://"):
            act(root, large)
        assert proxy.injected and proxy.requests["DELETE"] == 1
    assert storage.read(f"{root}/object") == b"old" and storage.read(f"{root}/source") == large
    assert not left_open(root)


@pytest.mark.parametrize("limit", [MIB, 2**30])
def test_parts_that_come_one_by_one_are_not_held_in_memory(
    root: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 MiB, in one request or in parts of 5 MiB, of which boto3 holds a few."""
    monkeypatch.setattr(store, "MAX_REQUEST", limit)
    storage.write_temporary(f"{root}/first", [b"x"])  # boto3 is imported
    tracemalloc.start()
    try:
        storage.write_temporary(f"{root}/one by one", (bytes([i]) * MIB for i in range(64)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50 * MIB
    assert storage.read(f"{root}/one by one", 9 * MIB - 1, 2) == bytes([8, 9])
