"""Hostile requests to `eval serve`: each gets a clear 4xx as JSON without a folder in it, and the server goes on."""

import json
import re
from collections.abc import Iterator

import pytest

from tests.support.serving import BEARER, TOKEN, Server, check_refused, guarded, name_of, raw, served

MB = 1_000_000


@pytest.fixture(scope="module")
def server(search_index: str) -> Iterator[Server]:
    with guarded(search_index) as server:
        yield server


@pytest.fixture(scope="module")
def clip_id(server: Server) -> str:
    return server.search(text="rain", k=1, headers=BEARER).json["results"][0]["id"]


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
    check_refused(server, server.ask(f"/api/search?{query}", headers=BEARER), status)


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
    check_refused(server, server.ask(path, headers=BEARER), status)


@pytest.mark.parametrize(
    "part", ["bytes=999999999-", "bytes=9-2", "bytes=-0", "bytes=a-b", "bytes=", f"bytes={'9' * 40}-"]
)
def test_a_range_outside_of_the_sound(server: Server, clip_id: str, part: str) -> None:
    answer = server.ask(f"/api/clips/{clip_id}/audio", headers={**BEARER, "Range": part})
    check_refused(server, answer, 416)
    assert re.fullmatch(r"bytes \*/\d+", answer.headers["content-range"])


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "NONSENSE"])
def test_other_methods(server: Server, method: str) -> None:
    check_refused(server, server.ask("/api/search?text=rain", method, headers=BEARER), 405)


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
        check_refused(server, answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"


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


def test_only_names_of_this_machine_are_answered_without_a_token(search_index: str) -> None:
    """A page of another site whose name leads to 127.0.0.1 gets nothing."""
    with served(search_index) as server:
        for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", ""):
            answer = server.ask("/api/index", headers={"Host": host})
            assert answer.status == 421 and "localhost" in json.loads(answer.body)["error"]
        for host in ("localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"):
            assert server.ask("/api/index", headers={"Host": host}).status == 200
