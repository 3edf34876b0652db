"""A range of a sound costs what it has: of a file on disk or in a store no other byte is read, of a recording few."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile

from eval.search import Query, Searcher
from eval.serving.service import START_BYTES
from pipeline import audio, sources, storage
from pipeline.sources import AudioLocation
from tests.support.faults import FaultyProxy
from tests.support.serving import Server, make_index, served

RATE_HZ = 44_100
SECONDS = 60
RECORDINGS = {"whole.wav": ("", ""), "long.wav": (40, 42), "long.flac": (30, 32), "long.ogg": (1, 3)}
TABLE = "file,labels,start,end\n" + "".join(
    f"{name},noise,{start},{end}\n" for name, (start, end) in RECORDINGS.items()
)


class Served(NamedTuple):
    """A server of the recordings in a store, and what it asks the store for."""

    server: Server
    proxy: FaultyProxy
    ids: dict[str, str]
    """By the name of the file."""

    def sent(self) -> int:
        return self.proxy.sent["GET"]

    def path(self, name: str) -> str:
        return f"/api/clips/{self.ids[name]}/audio"


def write(folder: Path) -> None:
    """Write a minute of noise in each format, and the table of its clips."""
    noise = np.random.default_rng(0).integers(-9_000, 9_000, SECONDS * RATE_HZ).astype(np.int16)
    for name in RECORDINGS:
        with soundfile.SoundFile(folder / name, "w", RATE_HZ, channels=1) as file:
            for second in np.split(noise, SECONDS):  # libsndfile fails on long blocks of Vorbis
                file.write(second)
    (folder / "metadata.csv").write_text(TABLE)


def ids(index: str) -> dict[str, str]:
    return {Path(hit.uri).name: hit.id for hit in Searcher(index).search(Query(text="noise"))}


@pytest.fixture(scope="module")
def stored(s3: str, clap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("recordings")
    write(folder)
    for name in [*RECORDINGS, "metadata.csv"]:
        storage.publish(f"{s3}/recordings/{name}", (folder / name).read_bytes())
    index = str(folder / "index")
    make_index(index, f"{s3}/recordings/metadata.csv", clap)
    with FaultyProxy(os.environ["AWS_ENDPOINT_URL"], share=0.0) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with served(index, "--limits.rate", "0") as server:
            yield Served(server, proxy, ids(index))


def test_of_a_file_in_a_store_only_the_range_is_asked_for(stored: Served, s3: str) -> None:
    content, path = storage.read(f"{s3}/recordings/whole.wav"), stored.path("whole.wav")
    before = stored.sent()
    head = stored.server.ask(path, "HEAD")
    assert head.headers["content-length"] == str(len(content)) and head.headers["content-type"] == "audio/wav"
    for first, count in ((5_000_000, 1_000), (0, 10), (len(content) - 300, 300)):
        part = stored.server.ask(path, headers={"Range": f"bytes={first}-{first + count - 1}"})
        assert (part.status, part.body) == (206, content[first : first + count])
    assert stored.server.ask(path, headers={"If-None-Match": head.headers["etag"]}).status == 304
    assert stored.sent() - before == START_BYTES + 1_310
    assert stored.server.ask(path).body == content


@pytest.mark.parametrize("name", ["long.wav", "long.flac"])
def test_of_a_recording_in_a_store_the_clip_is_read_and_once(stored: Served, s3: str, name: str) -> None:
    uri, path = f"{s3}/recordings/{name}", stored.path(name)
    start_s, end_s = map(float, RECORDINGS[name])
    before = stored.sent()
    content = stored.server.ask(path).body
    asked = stored.sent() - before
    assert asked < len(storage.read(uri)) / 5
    wanted = sources.read_audio(AudioLocation(uri, cut_start_s=start_s, cut_end_s=end_s))
    assert np.array_equal(audio.decode(content), wanted)
    assert stored.server.ask(path, headers={"Range": "bytes=1000-1999"}).body == content[1000:2000]
    assert stored.sent() - before == asked


def test_of_a_recording_that_cannot_be_entered_in_the_middle_the_clip_is_as_indexed(stored: Served, s3: str) -> None:
    location = AudioLocation(f"{s3}/recordings/long.ogg", cut_start_s=1.0, cut_end_s=3.0)
    content = stored.server.ask(stored.path("long.ogg")).body
    assert np.array_equal(audio.decode(content), sources.read_audio(location))


@pytest.fixture(scope="module")
def on_disk(clap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str, Path]]:
    """A server of a file of 38 MB, its path there and here."""
    folder = tmp_path_factory.mktemp("disk")
    noise = np.random.default_rng(0).integers(-9_000, 9_000, 600 * 32_000).astype(np.int16)
    (folder / "sounds").mkdir()
    soundfile.write(folder / "sounds" / "long.wav", noise, 32_000)
    index = str(folder / "index")
    make_index(index, str(folder / "sounds"), clap)
    with served(index, "--limits.rate", "0") as server:
        yield server, f"/api/clips/{ids(index)['long.wav']}/audio", folder / "sounds" / "long.wav"


def read_by(server: Server) -> int:
    """Return the bytes that a server's process has read, from disk and elsewhere."""
    return int(Path(f"/proc/{server.process.pid}/io").read_text().split()[1])


def test_of_a_file_on_disk_only_the_range_is_read(on_disk: tuple[Server, str, Path]) -> None:
    server, path, file = on_disk
    size, middle = file.stat().st_size, file.read_bytes()[20_000_000:20_001_000]
    server.ask(path, "HEAD")  # LanceDB opens its index on ids
    before = read_by(server)
    assert server.ask(path, headers={"Range": "bytes=20000000-20000999"}).body == middle
    assert read_by(server) - before < size / 100


def test_what_a_player_does_not_take_is_not_read(on_disk: tuple[Server, str, Path]) -> None:
    server, path, file = on_disk
    size, before = file.stat().st_size, read_by(server)
    with socket.socket() as player:
        player.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        player.connect(("127.0.0.1", server.port))
        player.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-\r\n\r\n".encode())
        beginning = b""
        while len(beginning) < 100_000:
            beginning += player.recv(65_536)
        assert f"Content-Range: bytes 0-{size - 1}/{size}".encode().lower() in beginning.lower()
        assert server.ask("/api/index").status == 200
    assert server.ask("/api/index").status == 200
    assert read_by(server) - before < size / 2


def test_another_file_at_the_place_has_another_tag(on_disk: tuple[Server, str, Path]) -> None:
    server, path, file = on_disk
    before = server.ask(path, headers={"Range": "bytes=100-199"})
    content = bytearray(file.read_bytes())
    content[100:200] = bytes(100)
    file.write_bytes(content)
    after = server.ask(path, headers={"Range": "bytes=100-199", "If-None-Match": before.headers["etag"]})
    assert (after.status, after.body) == (206, bytes(100)) and after.headers["etag"] != before.headers["etag"]
    assert server.ask(path, "HEAD", headers={"Range": "bytes=0-9", "If-Range": before.headers["etag"]}).status == 200
