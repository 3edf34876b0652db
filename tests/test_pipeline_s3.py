"""A whole job on S3 through a proxy that breaks requests: nothing is lost, nothing shows half, the bytes are as on disk."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from pipeline import storage
from pipeline.dataset.clip_index import ClipIndex
from pipeline.graph.caption_config import CaptionConfig
from tests.support.faults import KINDS, MORE, FaultyProxy

SHARE = 0.05


@pytest.fixture(scope="module")
def source(s3: str, caption_config: CaptionConfig) -> str:
    """The corpus' tagged clips on S3, under their own names."""
    folder = Path(caption_config.source).parent
    names = ["class_labels_indices.csv", "tagged_segments.csv", *(f"audio/{p.name}" for p in folder.glob("audio/*"))]
    for name in names:
        storage.publish(f"{s3}/faulty/in/{name}", (folder / name).read_bytes())
    return f"{s3}/faulty/in/tagged_segments.csv"


@pytest.fixture(scope="module")
def proxy(s3: str) -> Iterator[FaultyProxy]:
    with FaultyProxy(os.environ["AWS_ENDPOINT_URL"], SHARE, seed=4, kinds=(*KINDS, *MORE)) as running:
        yield running


def start(proxy: FaultyProxy, *words: str) -> "subprocess.Popen[str]":
    """Start a stage in a process of its own, which talks to the store through the proxy."""
    environment = os.environ | {"AWS_ENDPOINT_URL": proxy.endpoint}
    command = [sys.executable, "-m", "pipeline", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: "subprocess.Popen[str]") -> str:
    """Wait for a stage that must succeed; return its stderr."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out[-1000:] + err[-4000:]
    return err


def test_two_drivers_at_once_through_broken_requests_write_what_one_writes_on_disk(
    proxy: FaultyProxy, s3: str, source: str, caption_config: CaptionConfig, dataset: str
) -> None:
    out = f"{s3}/faulty/out"
    words = (
        "caption",
        "tiny",
        "--source",
        source,
        "--captioner",
        caption_config.captioner,
        "--actors.max",
        "0",
        "--out",
        out,
    )
    for driver in [start(proxy, *words), start(proxy, *words)]:
        end(driver)
    assert proxy.injected, "no fault: nothing is proved"
    ours, theirs = (storage.list_names(folder) for folder in (out, dataset))
    assert [name for name in ours if name.endswith((".tar", ".json", ".parquet"))] == [
        name for name in theirs if name.endswith((".tar", ".json", ".parquet"))
    ]
    for name in ours:
        if name.endswith(".tar") or "_stats" in name or (name.endswith(".parquet") and name[0] == "0"):
            assert storage.read(storage.join(out, name)) == Path(dataset, name).read_bytes(), name
    uploads = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).list_multipart_uploads(Bucket="corpus")
    assert not uploads.get("Uploads"), "an upload was left open"
    assert not storage.exists(f"{out}/attempts")
    assert "whole" in end(start(proxy, "verify", "--in-process", "--data", out))
    assert len(ClipIndex(out)) == 24
