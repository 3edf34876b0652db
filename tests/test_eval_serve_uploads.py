"""Hostile uploads to `eval serve`: each gets a clear 4xx, memory stays, and the server goes on."""

import gzip
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline import audio
from tests.support.serving import (
    BEARER,
    TOKEN,
    Server,
    check_refused,
    guarded,
    multipart,
    name_of,
    raw,
)

MB = 1_000_000


@pytest.fixture(scope="module")
def server(search_index: str) -> Iterator[Server]:
    with guarded(search_index) as server:
        yield server


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
    check_refused(server, server.ask("/api/search", "POST", body, {**BEARER, **headers}), status)


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
    check_refused(server, server.ask("/api/search", "POST", body, {**BEARER, **headers}), status)


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
