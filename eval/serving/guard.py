"""What every request passes before the application sees it, and every answer on its way out.

In this order: the name of the host, the rate, the token, the size, the number of requests at a time. What is refused here
costs no decoding, no model and no memory.
"""

import asyncio
import contextlib
import logging
import math
import time
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eval.serving.access import Access
from eval.serving.errors import RequestError
from eval.serving.numbers import Numbers
from eval.serving.rate import RateLimiter
from eval.serving.settings import Limits

log = logging.getLogger(__name__)
OPEN_PATHS = ("/healthz", "/login", "/favicon.ico")  # without a token
TOKEN_HEADER = "the header Authorization: Bearer <token>"  # noqa: S105
WRONG_TOKEN_COST = 10.0  # a wrong token counts as so many requests
BODY_TIMEOUT_S = 30.0  # for the whole body of a request
DISCARD_S = 5.0  # for the rest of a body that is too large
MB = 1_000_000
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PAGE_POLICY = "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"  # beside that in the head of each page
OTHER_POLICY = "default-src 'none'; frame-ancestors 'none'"


class Guard:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, access: Access, limits: Limits, numbers: Numbers) -> None:
        self.app, self.access, self.numbers = app, access, numbers
        self.rate = RateLimiter(limits.rate)
        self.max_bytes = int(limits.upload_mb * MB)
        self.max_running, self.running = limits.concurrent, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, _Outgoing(send))
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, outgoing: "_Outgoing") -> None:
        started = time.monotonic()
        try:
            if early := self._check(scope):
                await early(scope, receive, outgoing)
            else:
                await self._run(scope, _Incoming(receive, self.max_bytes), outgoing)
        except HTTPException as error:
            await outgoing.fail(scope, receive, as_json(error))
        except Exception:
            log.exception("serve: %s %s failed", scope["method"], scope["path"])
            await outgoing.fail(
                scope, receive, as_json(RequestError(500, "The server failed; its log has the reason."))
            )
        finally:
            if outgoing.status == 401:
                self.rate.charge(_client(scope), WRONG_TOKEN_COST)
            self.numbers.count(scope, outgoing.status, time.monotonic() - started)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application. The check for health does not count: a busy server is healthy. Nor does an answer that is
        on its way: a player that pauses takes it slowly."""
        counted = scope["path"] != "/healthz"
        if counted and self.running >= self.max_running:
            raise RequestError(503, "The server is busy; try again in a moment.", {"Retry-After": "1"})
        self.running += counted

        async def send_uncounted(message: Message) -> None:
            nonlocal counted
            self.running -= counted
            counted = False
            await send(message)

        try:
            await self.app(scope, receive, send_uncounted)
        finally:
            self.running -= counted

    def _check(self, scope: Scope) -> Response | None:
        """Return an answer other than the application's, or None. Raises RequestError for a request that is refused."""
        headers = Headers(scope=scope)
        if not self.access.is_host(headers.get("host", "")):
            raise RequestError(421, "This server answers as localhost only; start it with a token to use another name.")
        if wait_s := self.rate.wait_s(_client(scope)):
            seconds = max(1, math.ceil(wait_s))
            raise RequestError(429, f"Too many requests; try again in {seconds} s.", {"Retry-After": str(seconds)})
        if any(ord(character) < 32 or ord(character) == 127 for character in scope["path"]):
            raise RequestError(400, "The path holds a control character.")
        if redirect := self._redirect(scope, headers):
            return redirect
        if scope["path"] not in OPEN_PATHS and not self.access.is_allowed(headers):
            message = (
                "The token is wrong." if "authorization" in headers else f"A token is needed: send {TOKEN_HEADER}."
            )
            raise RequestError(401, message, {"WWW-Authenticate": "Bearer"})
        self._check_size(headers)
        return None

    def _redirect(self, scope: Scope, headers: Headers) -> Response | None:
        """Return where a browser has to go that opens the page with the token in its address, or without a token."""
        query = scope["query_string"].decode("latin-1")
        if scope["method"] != "GET" or scope["path"] != "/" or not self.access.token_sha256:
            return None
        values = parse_qsl(query, keep_blank_values=True)
        tokens = [value for name, value in values if name == "token"]
        rest = urlencode([(name, value) for name, value in values if name != "token"]) if tokens else query
        if any(self.access.is_token(token) for token in tokens):
            return self.access.open_page(scope, rest)
        if "text/html" in headers.get("accept", "") and not self.access.is_allowed(headers):
            return RedirectResponse(f"./login?next={quote(rest, safe='')}", 303)
        return None

    def _check_size(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise RequestError(400, f"Content-Length {length[:40]!r} is not a number of bytes.")
        if len(length) > 18 or int(length) > self.max_bytes:
            raise _too_large(self.max_bytes)


class _Incoming:
    """Receives the body of a request: at most so many bytes, in at most so many seconds."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self.receive, self.max_bytes, self.read = receive, max_bytes, 0
        self.complete = False
        self.deadline = time.monotonic() + BODY_TIMEOUT_S

    async def __call__(self) -> Message:
        if self.complete:  # what follows is the end of the connection
            return await self.receive()
        try:
            message = await asyncio.wait_for(self.receive(), max(0.0, self.deadline - time.monotonic()))
        except TimeoutError:
            raise RequestError(408, f"The request did not arrive within {BODY_TIMEOUT_S:.0f} s.") from None
        self.read += len(message.get("body", b""))
        if self.read > self.max_bytes:
            raise _too_large(self.max_bytes)
        self.complete = not message.get("more_body", False)
        return message


class _Outgoing:
    """Sends an answer, with the headers that every answer has."""

    def __init__(self, send: Send) -> None:
        self.send, self.status = send, 0  # 0: no answer was begun
        self.complete = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            is_page = headers.get("content-type", "").startswith("text/html")
            for name, value in HEADERS.items():
                headers[name] = value
            headers["Content-Security-Policy"] = PAGE_POLICY if is_page else OTHER_POLICY
            headers.setdefault("Cache-Control", "no-store")
        self.complete = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self.send(message)

    async def fail(self, scope: Scope, receive: Receive, response: Response) -> None:
        """Send an error in place of the answer. When a part of the answer is sent, the connection is cut instead."""
        if self.complete:
            return
        if self.status:
            raise ConnectionError("the answer broke off")
        if response.status_code == 413 and "expect" not in Headers(scope=scope):
            await _discard(receive)
        if response.status_code in (408, 413, 500):
            response.headers["Connection"] = "close"  # the rest of the body is not read
        await response(scope, receive, self)


async def _discard(receive: Receive) -> None:
    """Receive a body for some seconds and drop it: many clients read the answer only when they have sent everything."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_S):
            while (await receive()).get("more_body", False):
                pass


def as_json(error: HTTPException) -> Response:
    """Return the answer of an error."""
    return JSONResponse({"error": error.detail}, error.status_code, dict(error.headers or {}))


def _client(scope: Scope) -> str:
    """Return the address of the client; headers that proxies write are not trusted."""
    return str((scope.get("client") or ("",))[0])


def _too_large(max_bytes: int) -> RequestError:
    return RequestError(413, f"The request is larger than {max_bytes / MB:g} MB; send a shorter sound.")
