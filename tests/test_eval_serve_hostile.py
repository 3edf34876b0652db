"""Hostile requests to `eval serve`: each gets a clear 4xx as JSON without a folder in it, and the server goes on."""

import contextlib
import gzip
import io
import json
import re
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline import audio
from tests.conftest import made_once
from tests.support.serving import Answer, Server, make_index, multipart, served

TOKEN = "a token of some length"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
MB = 1_000_000


@pytest.fixture(scope="module")
def index(dataset: str, clap: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return made_once(tmp_path_factory, "search_index", lambda out: make_index(out, dataset, clap))


@pytest.fixture(scope="module")
def server(index: str) -> Iterator[Server]:
    limits = ("--limits.rate", "0", "--limits.upload-mb", "1", "--limits.upload-s", "5")
    with served(index, *limits, token=TOKEN) as server:
        yield server


@pytest.fixture(scope="module")
def clip_id(server: Server) -> str:
    return server.search(text="rain", k=1, headers=BEARER).json["results"][0]["id"]


def zip_bomb() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("sound.wav", bytes(100 * MB))
    return packed.getvalue()


def wav(seconds: float = 0.1, **header: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(round(8000 * seconds), np.int16), 8000, format="WAV", subtype="PCM_16")
    content = bytearray(file.getvalue())
    for position, value in ((24, header.get("rate")), (40, header.get("size"))):
        if value is not None:
            content[position : position + 4] = value.to_bytes(4, "little")
    return bytes(content)


def long_flac() -> bytes:
    """Ten minutes of silence in some kilobytes."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(599 * 8000, np.int16), 8000, format="FLAC")
    return file.getvalue()


def raw(server: Server, request: bytes) -> bytes:
    """Send bytes as they are, and return all that comes back; nothing where the server cut the connection at once."""
    received = b""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(request)
        while part := connection.recv(65_536):
            received += part
    return received


def name_of(value: object) -> str:
    """Return a short name of a case. The first bytes of an archive are the same at all times, later ones hold a date."""
    shown = value[:8] if isinstance(value, bytes) else value
    return re.sub(r"\W+", "_", repr(shown)[:40])


def check(server: Server, answer: Answer, status: int) -> None:
    """An error is a sentence, and an honest request is answered after it."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    message = answer.json["error"]
    assert 10 < len(message) < 400 and message.endswith(".") and "Traceback" not in message
    assert not re.search(r"/(home|tmp|work|usr|root)/|\.py", message) and str(Path.cwd()) not in message
    assert server.search(text="rain", k=1, headers=BEARER).status == 200


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("text=", 400),
        ("text=%20%20", 400),
        (f"text={'a' * 501}", 400),
        ("text=rain%00", 400),
        ("text=rain%0d%0aSet-Cookie:a=b", 400),
        ("text=rain&k=-3", 400),
        ("text=rain&k=0", 400),
        ("text=rain&k=101", 400),
        ("text=rain&k=1e9", 400),
        ("text=rain&k=twenty", 400),
        (f"text=rain&k={'9' * 5000}", 400),
        ("text=rain&mode=sql", 400),
        ("mode=words", 400),
        ("text=rain&text_weight=nan", 400),
        ("text=rain&text_weight=2", 400),
        ("text=rain&tags=No+such+tag", 400),
        ("text=rain&tags=')+OR+1%3D1--", 400),
        ("text=rain&" + "&".join(["tags=Rain"] * 21), 400),
        ("text=rain&without=../../etc/passwd", 400),
        ("like=none", 404),
        ("like=..%2F..%2Fetc%2Fpasswd", 404),
        ("like='%20OR%20'1'%3D'1", 404),
    ],
    ids=name_of,
)
def test_a_wrong_search(server: Server, query: str, status: int) -> None:
    check(server, server.ask(f"/api/search?{query}", headers=BEARER), status)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/clips/none", 404),
        ("/api/clips/../../../etc/passwd", 404),
        ("/api/clips/..%2f..%2f..%2fetc%2fpasswd/audio", 404),
        ("/api/clips/%2e%2e/audio", 404),
        (f"/api/clips/{'a' * 4000}/audio", 404),
        ("/api/clips/%00/audio", 400),
        ("/api/clips/%0d%0aX:y/spectrogram.png", 400),
        ("/api/clips/%ff%fe/audio", 404),
        ("/../../etc/passwd", 404),
        ("//etc/passwd", 404),
        ("/eval/serving/app.py", 404),
        ("/api/tags?limit=-1", 400),
    ],
    ids=name_of,
)
def test_a_wrong_path(server: Server, path: str, status: int) -> None:
    check(server, server.ask(path, headers=BEARER), status)


@pytest.mark.parametrize(
    "part", ["bytes=999999999-", "bytes=9-2", "bytes=-0", "bytes=a-b", "bytes=", f"bytes={'9' * 40}-"]
)
def test_a_range_outside_of_the_sound(server: Server, clip_id: str, part: str) -> None:
    answer = server.ask(f"/api/clips/{clip_id}/audio", headers={**BEARER, "Range": part})
    check(server, answer, 416)
    assert re.fullmatch(r"bytes \*/\d+", answer.headers["content-range"])


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 415),
        (b"RIFF", 415),
        (b"no sound at all" * 100, 415),
        (zip_bomb(), 415),
        (gzip.compress(bytes(50 * MB), mtime=0), 415),
        (b"#!/bin/sh\nrm -rf /\n", 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", 415),
        (b"#EXTM3U\nfile:///etc/passwd\n", 415),
        (wav(size=10**6), 415),
        (wav(rate=2**31), 415),
        (wav(seconds=0), 415),
        (wav(seconds=6), 413),
        (long_flac(), 413),
        (bytes(2 * MB), 413),
        (b"RIFF" + bytes(20 * MB), 413),
    ],
    ids=name_of,
)
def test_a_file_that_is_no_sound_or_too_much(server: Server, content: bytes, status: int) -> None:
    body, headers = multipart(file=content)
    check(server, server.ask("/api/search", "POST", body, {**BEARER, **headers}), status)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {"Content-Type": "application/json"}, 400),
        (b'{"text": ', {"Content-Type": "application/json"}, 400),
        (b"text=rain", {"Content-Type": "application/x-www-form-urlencoded"}, 400),
        (b"broken", {"Content-Type": "multipart/form-data; boundary=a"}, 400),
        (b"--a\r\n\r\n", {"Content-Type": "multipart/form-data"}, 400),
        (
            b"--a\r\nContent-Disposition: form-data\r\n\r\nx\r\n--a--\r\n",
            {"Content-Type": "multipart/form-data; boundary=a"},
            400,
        ),
        (multipart(file="a text")[0], multipart()[1], 400),
        (multipart(file=wav(), k="-1")[0], multipart()[1], 400),
        (multipart(file=wav(), text="a" * 501)[0], multipart()[1], 400),
        (multipart(text="rain")[0], multipart()[1], 400),
    ],
    ids=name_of,
)
def test_a_body_that_is_no_form(server: Server, body: bytes, headers: dict[str, str], status: int) -> None:
    check(server, server.ask("/api/search", "POST", body, {**BEARER, **headers}), status)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "NONSENSE"])
def test_other_methods(server: Server, method: str) -> None:
    check(server, server.ask("/api/search?text=rain", method, headers=BEARER), 405)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {TOKEN} "[:-2]},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer \xff\xfe"},
        {"Cookie": "blat_search="},
        {"Cookie": f"blat_search={TOKEN}"},
        {"Cookie": 'blat_search="\\777'},
        {"X-Forwarded-For": "127.0.0.1"},
    ],
    ids=name_of,
)
def test_a_wrong_token_opens_nothing(server: Server, headers: dict[str, str]) -> None:
    for path in (
        "/",
        "/api/search?text=rain",
        "/api/index",
        "/docs",
        "/openapi.json",
        "/metrics",
        "/none",
        "/API/index",
    ):
        answer = server.ask(path, headers=headers)
        check(server, answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_large_body_is_refused_before_it_comes(server: Server) -> None:
    """The length alone is enough, and a body without a length is cut off where it grows too large."""
    start = f"POST /api/search HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nExpect: 100-continue\r\n"
    answer = raw(server, f"{start}Content-Length: {10**12}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413") and b"larger than 1 MB" in answer
    chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"
    head = start.replace("Expect: 100-continue\r\n", "") + "Content-Type: multipart/form-data; boundary=a\r\n"
    part = b'--a\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    body = f"{len(part):x}\r\n".encode() + part + b"\r\n" + 20 * chunk + b"0\r\n\r\n"
    answer = raw(server, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + body)
    assert answer.startswith(b"HTTP/1.1 413") and b"larger than 1 MB" in answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Name: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=name_of,
)
def test_what_is_no_request(server: Server, request_bytes: bytes) -> None:
    """uvicorn refuses it before the application sees it."""
    answer = raw(server, request_bytes)
    assert answer.startswith(b"HTTP/1.1 4") or (answer == b"" and len(request_bytes) > 65_536), answer[:200]
    assert server.search(text="rain", k=1, headers=BEARER).status == 200


def test_the_token_opens_the_page_by_address_form_and_cookie(server: Server) -> None:
    browser = {"Accept": "text/html"}
    asked = server.ask("/?text=rain&tags=Bell", headers=browser)
    assert asked.status == 303 and asked.headers["location"] == "./login?next=text%3Drain%26tags%3DBell"
    assert 'value="text=rain&amp;tags=Bell"' in server.ask("/login?next=text%3Drain%26tags%3DBell").body.decode()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    wrong = server.ask("/login", "POST", b"token=wrong&next=text%3Drain", form)
    assert wrong.status == 401 and b"This token is wrong" in wrong.body and "set-cookie" not in wrong.headers
    right = server.ask("/login", "POST", f"token={TOKEN}&next=text%3Drain".replace(" ", "+").encode(), form)
    by_address = server.ask(f"/?text=rain&token={TOKEN.replace(' ', '+')}", headers=browser)
    for answer in (right, by_address):
        assert answer.status == 303 and answer.headers["location"] == "./?text=rain"
        name, *flags = answer.headers["set-cookie"].split("; ")
        assert {"HttpOnly", "SameSite=lax"} <= set(flags) and TOKEN not in name
        assert server.ask("/", headers={"Cookie": name}).status == 200
        assert server.search(text="rain", headers={"Cookie": name}).status == 200


@pytest.mark.parametrize(
    "next", ["https://evil.example/", "//evil.example", "/\\evil", "javascript:alert(1)", "%0d%0aX: y"]
)
def test_the_form_leads_nowhere_else(server: Server, next: str) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = server.ask("/login", "POST", f"token={TOKEN}&next={next}".replace(" ", "+").encode(), form)
    assert answer.status == 303 and answer.headers["location"].startswith("./?") and "x" not in answer.headers


def test_only_names_of_this_machine_are_answered_without_a_token(index: str) -> None:
    """A page of another site whose name leads to 127.0.0.1 gets nothing."""
    with served(index) as server:
        for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", ""):
            answer = server.ask("/api/index", headers={"Host": host})
            assert answer.status == 421 and "localhost" in json.loads(answer.body)["error"]
        for host in ("localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"):
            assert server.ask("/api/index", headers={"Host": host}).status == 200


def test_memory_does_not_grow_with_refused_uploads(server: Server) -> None:
    def resident_mb() -> float:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1000

    body, headers = multipart(file=bytes(8 * MB))
    before = resident_mb()
    for _ in range(12):
        assert server.ask("/api/search", "POST", body, {**BEARER, **headers}).status == 413
    assert resident_mb() < before + 40


def test_a_sound_of_the_longest_length_is_taken(server: Server) -> None:
    body, headers = multipart(file=audio.encode_flac(np.zeros(5 * audio.SAMPLE_RATE_HZ, np.int16)))
    assert server.ask("/api/search", "POST", body, {**BEARER, **headers}).status == 200
