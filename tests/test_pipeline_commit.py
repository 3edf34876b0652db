"""One attempt at a shard shows, however many write, wherever a writer dies; on disk and on a real S3 endpoint."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from pipeline import storage
from pipeline.dataset import commit
from pipeline.storage import s3 as s3_store
from tests.support.faults import FaultyProxy

NAMES = ("00003.tar", "00003.parquet", "00003_stats.json")


def files(writer: int, size: int = 1000) -> dict[str, bytes]:
    return {name: f"{name} by {writer} ".encode() * size for name in NAMES}


def parts(writer: int) -> dict[str, list[bytes]]:
    """Return the files as a shard is written: in parts."""
    return {name: [content[:10], content[10:]] for name, content in files(writer).items()}


def held(data: str) -> dict[str, bytes]:
    return {name: storage.read(storage.join(data, name)) for name in NAMES}


@pytest.fixture(params=["disk", "s3"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "disk" else f"{request.getfixturevalue('s3')}/{tmp_path.name}"


def test_of_many_writers_at_once_exactly_one_shows(data: str) -> None:
    for round_ in range(3):
        folder = storage.join(data, str(round_))
        start = threading.Barrier(6)

        def write(writer: int, folder: str = folder, start: threading.Barrier = start) -> None:
            start.wait()
            commit.publish(folder, "00003", parts(writer))

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(write, range(6)))
        assert held(folder) in [files(writer) for writer in range(6)]
        commit.clean_up(folder)
        assert storage.list_names(folder) == sorted(NAMES)


def test_a_committed_shard_is_left_alone(data: str) -> None:
    commit.publish(data, "00003", parts(1))
    commit.publish(data, "00003", parts(2))
    assert held(data) == files(1)
    assert storage.list_names(storage.join(data, commit.FOLDER)) == []


@pytest.mark.parametrize("moved", range(len(NAMES)))
def test_who_comes_next_finishes_a_winner_that_died(data: str, moved: int) -> None:
    """The winner died with `moved` of its files at their names."""
    whole = files(1)
    for i, (name, content) in enumerate(whole.items()):
        uri = storage.join(data, name) if i < moved else storage.join(data, commit.FOLDER, "00003-dead", name)
        storage.publish(uri, content)
    decision = {"attempt": "00003-dead", "files": list(NAMES)}
    storage.publish_json(storage.join(data, commit.FOLDER, "00003.json"), decision)
    commit.recover(data)
    assert held(data) == whole


def test_a_name_that_was_taken_and_cleared_away_is_lost(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the refused put and the look at what is there, another writer has finished and cleaned up."""
    uri = f"{s3}/{tmp_path.name}/decision.json"
    assert storage.create(uri, b"theirs")
    call = s3_store._call

    def clear_after(*args: Any, **kwargs: Any) -> None:
        try:
            call(*args, **kwargs)
        finally:
            storage.remove(uri)

    monkeypatch.setattr(s3_store, "_call", clear_after)
    assert storage.create(uri, b"ours") is False


def test_a_refusal_that_decides_nothing_is_retried(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 answers 409 to one of two conditional puts that meet; neither need be there yet."""
    with FaultyProxy(os.environ["AWS_ENDPOINT_URL"], share=0.5, seed=1, kinds=("conflict",)) as proxy:
        client = boto3.client("s3", endpoint_url=proxy.endpoint)
        monkeypatch.setattr(s3_store, "_client", lambda: client)
        for i in range(8):
            assert storage.create(f"{s3}/{tmp_path.name}/{i}", b"ours")
            assert not storage.create(f"{s3}/{tmp_path.name}/{i}", b"theirs")
        assert proxy.injected["conflict", "PUT"] >= 3


def test_a_dead_loser_leaves_no_trace_in_the_result(data: str) -> None:
    storage.publish(storage.join(data, commit.FOLDER, "00003-dead", NAMES[0]), b"half of it")
    commit.recover(data)
    assert not storage.exists(storage.join(data, NAMES[0]))
    commit.publish(data, "00003", parts(1))
    commit.clean_up(data)
    assert held(data) == files(1) and storage.list_names(data) == sorted(NAMES)


WRITER = """
import sys
from pipeline.dataset import commit
for shard in range(200):
    names = [f"{shard:05d}.tar", f"{shard:05d}.parquet", f"{shard:05d}_stats.json"]
    commit.publish(sys.argv[1], f"{shard:05d}", {name: [f"{name} by {sys.argv[2]} ".encode()] * 2000 for name in names})
"""


def test_writers_killed_at_any_moment_leave_whole_shards(tmp_path: Path) -> None:
    """Processes that write the same shards are killed at random; what is committed is of one writer and whole."""
    draw = random.Random(0)
    data = str(tmp_path)

    def marks() -> list[Path]:
        return list(tmp_path.glob("*_stats.json"))

    for pair in range(3):
        command = [sys.executable, "-c", WRITER, data]
        writers = [subprocess.Popen([*command, str(2 * pair + number)], cwd=os.getcwd()) for number in range(2)]
        enough = len(marks()) + draw.randint(1, 30)
        while len(marks()) < enough:
            assert all(writer.poll() is None for writer in writers), "a writer has ended by itself"
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.02))  # anywhere between two commits
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
    commit.recover(data)
    for mark in marks():
        shard = mark.name.removesuffix("_stats.json")
        authors = {
            Path(data, name).read_bytes().split(b" by ")[1].split()[0]
            for name in (f"{shard}.tar", f"{shard}.parquet", mark.name)
        }
        assert len(authors) == 1, (shard, authors)
    tars = {path.stem for path in tmp_path.glob("*.tar")}
    assert tars == {mark.name.removesuffix("_stats.json") for mark in marks()}, "a tar without its commit mark"
