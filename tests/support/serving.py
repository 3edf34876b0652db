"""The stage `eval serve` as a process, the index that it serves, and requests to it."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from eval.serving.settings import TOKEN_VARIABLE
from eval.stages.index_search import IndexSearchConfig
from eval.stages.index_search import run as run_index
from pipeline.dataset.clip_index import ClipIndex

ADDRESS = re.compile(r"serve: http://(\S+):(\d+) answers")
TOKEN = "a token of some length"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
START_S, STOP_S = 300, 120  # many times what it takes on a machine with nothing else to do


class Answer(NamedTuple):
    """An answer as it came."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A running `eval serve`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process, self.lines = process, list[str]()
        self.port = self._read_port()
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._read_on, daemon=True).start()

    def _read_port(self) -> int:
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line)
            if found := ADDRESS.search(line):
                return int(found[2])
        raise AssertionError("".join(self.lines))

    def _read_on(self) -> None:
        assert self.process.stderr
        self.lines.extend(self.process.stderr)

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}))
            return answer_of(connection.getresponse())
        finally:
            connection.close()

    def search(self, headers: Mapping[str, str] | None = None, **values: Any) -> Answer:
        """Search by a GET; a list is a parameter that stands several times."""
        return self.ask(f"/api/search?{urlencode(values, doseq=True)}", headers=headers)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Stop it by a signal and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_S)


def answer_of(response: http.client.HTTPResponse) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


@contextmanager
def served(index: str, *flags: str, token: str = "") -> Iterator[Server]:
    """Serve an index at a free port; the process is ended at the end."""
    command = [sys.executable, "-m", "eval", "serve", "--index", index, "--port", "0", *flags]
    environment = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
    environment |= {TOKEN_VARIABLE: token} if token else {}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    timer = threading.Timer(START_S, process.kill)
    timer.start()
    try:
        server = Server(process)
        timer.cancel()
        yield server
    finally:
        timer.cancel()
        process.kill()
        process.wait()


@contextmanager
def guarded(index: str) -> Iterator[Server]:
    """Serve an index with a token and small uploads, at any rate."""
    limits = ("--limits.rate", "0", "--limits.upload-mb", "1", "--limits.upload-s", "5")
    with served(index, *limits, token=TOKEN) as server:
        yield server


def make_index(out: str, dataset: str, model: str) -> None:
    """Index a dataset in this process."""
    run_index(IndexSearchConfig(data=(dataset,), model=model, out=out))


def multipart(**parts: bytes | str) -> tuple[bytes, dict[str, str]]:
    """Return the body of a form and its headers; bytes are a file."""
    boundary, lines = "boundary-of-this-form", list[bytes]()
    for name, value in parts.items():
        file = '; filename="sound.bin"' if isinstance(value, bytes) else ""
        lines += [f"--{boundary}".encode(), f'Content-Disposition: form-data; name="{name}"{file}'.encode(), b""]
        lines.append(value if isinstance(value, bytes) else value.encode())
    body = b"\r\n".join([*lines, f"--{boundary}--".encode(), b""])
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def flac_of(dataset: str, key: str) -> bytes:
    """Return the sound of a clip of a dataset."""
    index = ClipIndex(dataset)
    return index.flac(index.keys.index(key))


def name_of(value: object) -> str:
    """Return a short name of a case. The first bytes of an archive are the same at all times, later ones hold a date."""
    shown = value[:8] if isinstance(value, bytes) else value
    return re.sub(r"\W+", "_", repr(shown)[:40])


def check_refused(server: Server, answer: Answer, status: int) -> None:
    """An error is a sentence, and an honest request is answered after it."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    message = answer.json["error"]
    assert 10 < len(message) < 400 and message.endswith(".") and "Traceback" not in message
    assert not re.search(r"/(home|tmp|work|usr|root)/|\.py", message) and str(Path.cwd()) not in message
    assert server.search(text="rain", k=1, headers=BEARER).status == 200


def raw(server: Server, request: bytes) -> bytes:
    """Send bytes as they are, and return all that comes back; nothing where the server cut the connection at once."""
    received = b""
    with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(request)
        while part := connection.recv(65_536):
            received += part
    return received
