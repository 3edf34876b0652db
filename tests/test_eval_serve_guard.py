"""What every request passes, around an application of a line, on real connections: rate, number at a time, slow bodies."""

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from eval.serving import guard, in_process
from eval.serving.access import Access
from eval.serving.guard import Guard
from eval.serving.numbers import Numbers
from eval.serving.rate import MAX_CLIENTS, RateLimiter
from eval.serving.settings import Limits, is_loopback
from tests.support.serving import Answer, answer_of


class Inner:
    """Answers `/wait` when it is released, `/slow` with a half before, fails at `/fail` and in the middle of `/break`."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if scope["path"] == "/wait":
            self.waiting += 1
            await self._release()
        if scope["path"] == "/fail":
            raise ValueError("a secret of the server")
        if scope["path"] == "/break":
            await StreamingResponse(self._break())(scope, receive, send)
            return
        if scope["path"] == "/slow":
            await StreamingResponse(self._slow())(scope, receive, send)
            return
        body = await request.body()
        await Response(str(len(body)))(scope, receive, send)

    async def _release(self) -> None:
        while not self.released.is_set():
            await asyncio.sleep(0.01)

    async def _slow(self):
        yield b"begun "
        await self._release()
        yield b"and ended"

    async def _break(self):
        yield b"begun"
        raise ValueError("a secret of the server")


@contextmanager
def guarded(limits: Limits) -> Iterator[tuple[int, Inner]]:
    inner = Inner()
    app = Guard(inner, Access(""), limits, Numbers())
    bound = in_process.bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, http="h11", log_config=None, lifespan="off"))
    thread = threading.Thread(target=lambda: server.run(sockets=[bound]))
    port = bound.getsockname()[1]
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield port, inner
    finally:
        inner.released.set()
        server.should_exit = True
        thread.join()


def ask(port: int, path: str, body: bytes | None = None) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST" if body else "GET", path, body)
        return answer_of(connection.getresponse())
    finally:
        connection.close()


def test_a_client_that_asks_too_often_has_to_wait() -> None:
    with guarded(Limits(rate=0.5)) as (port, _):  # five at once, then one in two seconds
        answers = [ask(port, "/") for _ in range(7)]
        assert [answer.status for answer in answers] == [200] * 5 + [429] * 2
        assert answers[-1].headers["retry-after"] in ("1", "2")
        assert "try again" in answers[-1].json["error"]


def test_more_requests_than_allowed_at_a_time_are_turned_away_but_health_is_answered() -> None:
    with guarded(Limits(rate=0, concurrent=3)) as (port, inner):
        answers: list[Answer] = []
        threads = [threading.Thread(target=lambda: answers.append(ask(port, "/wait"))) for _ in range(3)]
        for thread in threads:
            thread.start()
        while inner.waiting < 3:
            time.sleep(0.01)
        refused = ask(port, "/")
        assert refused.status == 503 and refused.headers["retry-after"] == "1" and "busy" in refused.json["error"]
        assert ask(port, "/healthz").status == 200
        inner.released.set()
        for thread in threads:
            thread.join()
        assert [answer.status for answer in answers] == [200] * 3
        assert ask(port, "/").status == 200


def test_an_answer_that_is_taken_slowly_turns_nobody_away() -> None:
    with guarded(Limits(rate=0, concurrent=1)) as (port, inner):
        player = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        player.request("GET", "/slow")
        answer = player.getresponse()
        assert answer.read(6) == b"begun "
        assert ask(port, "/").status == ask(port, "/").status == 200
        inner.released.set()
        assert answer.read() == b"and ended"
        player.close()


def test_a_bug_is_a_sentence_without_a_secret_and_the_log_has_it(caplog: pytest.LogCaptureFixture) -> None:
    with guarded(Limits()) as (port, _):
        answer = ask(port, "/fail")
        assert (
            answer.status == 500
            and b"secret" not in answer.body
            and answer.json["error"].startswith("The server failed")
        )
        assert "a secret of the server" in caplog.text
        with pytest.raises(http.client.IncompleteRead):
            ask(port, "/break")
        assert ask(port, "/").status == 200


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_TIMEOUT_S", 0.3)
    with guarded(Limits()) as (port, _):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.putrequest("POST", "/")
        connection.putheader("Content-Length", "10")
        connection.endheaders(b"half")
        answer = answer_of(connection.getresponse())
        connection.close()
        assert answer.status == 408 and json.loads(answer.body)["error"].startswith("The request did not arrive")
        assert ask(port, "/", b"whole").body == b"5"


def test_buckets_fill_again_and_old_clients_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    limiter = RateLimiter(2.0)
    assert [limiter.wait_s("a") for _ in range(20)] == [0.0] * 20
    assert limiter.wait_s("a") == pytest.approx(0.5) and limiter.wait_s("b") == 0
    now += 0.5
    assert limiter.wait_s("a") == 0 and limiter.wait_s("a") > 0
    limiter.charge("a", 10)
    now += 5.0
    assert limiter.wait_s("a") > 0
    now += 1000
    assert [limiter.wait_s("a") for _ in range(20)] == [0.0] * 20 and limiter.wait_s("a") > 0
    for number in range(MAX_CLIENTS + 5):
        limiter.wait_s(f"client {number}")
    assert len(limiter.buckets) == MAX_CLIENTS and "a" not in limiter.buckets


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True), ("0.0.0.0", False),
     ("::", False), ("10.0.0.1", False), ("example.org", False), ("", False), ("localhost.example.org", False)],
)  # fmt: skip
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
