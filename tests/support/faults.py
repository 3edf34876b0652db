"""An HTTP proxy that breaks a share of the requests between S3 clients and moto's server, as real stores and networks do.

    python -m tests.support.faults --target http://127.0.0.1:5000 --port 5001 --share 0.05     # prints its counts on SIGTERM

What may happen to a request; those of MORE and REFUSALS happen only when `kinds` names them:

    internal   the answer is 500 InternalError, nothing reaches the store
    slow_down  the answer is 503 SlowDown, nothing reaches the store
    conflict   the answer is 409 ConditionalRequestConflict, nothing reaches the store; only to a conditional put
    expired    the answer is 400 ExpiredToken, nothing reaches the store
    kept       the answer is 200, and states an InternalError for each object; only to a request that deletes objects
    reset      the connection is reset without an answer, nothing reaches the store
    truncated  the true status and headers, a part of the body, then a reset; only where the answer has a body
    lost       the store does what was asked, then the connection is reset without an answer
"""

import argparse
import http.client
import json
import random
import re
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

ERRORS = {
    "internal": (500, "InternalError"),
    "slow_down": (503, "SlowDown"),
    "conflict": (409, "ConditionalRequestConflict"),
    "expired": (400, "ExpiredToken"),
}
KINDS = ("internal", "slow_down", "reset", "truncated")
MORE = ("lost", "conflict")  # those that happen only when asked for
REFUSALS = ("expired", "kept")  # likewise; clients give up on them


class FaultyProxy(ThreadingHTTPServer):
    """Serves on a local port (0: a free one). `injected` counts faults by (kind, method), `requests` all by method,
    `sent` the bytes of the answers' bodies by method.

    Every answer begins `delay_s` late. Requests without `only` in their path are never broken.
    """

    request_queue_size = 128  # connections that wait to be taken

    def __init__(
        self,
        target: str,
        share: float = 0.05,
        seed: int = 0,
        kinds: Sequence[str] = KINDS,
        port: int = 0,
        delay_s: float = 0.0,
        only: str = "",
    ):
        self.target, self.share, self.kinds, self.delay_s = urlsplit(target).netloc, share, kinds, delay_s
        self.only = only
        self.injected, self.requests, self.sent = Counter[tuple[str, str]](), Counter[str](), Counter[str]()
        self.random, self.lock = random.Random(seed), threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # no farewell first: a reset is all that the client gets to see

    def draw(self, method: str, path: str, unfit: set[str]) -> tuple[str, float]:
        """Decide what happens to a request: the kind of fault, "" for none, and what part of a body to send."""
        kinds = [kind for kind in self.kinds if kind not in unfit]
        with self.lock:
            self.requests[method] += 1
            if not kinds or self.only not in path or self.random.random() >= self.share:
                return "", 1.0
            kind, part = self.random.choice(kinds), self.random.random()
            self.injected[kind, method] += 1
            return kind, part


class _Handler(BaseHTTPRequestHandler):
    server: FaultyProxy
    protocol_version = "HTTP/1.1"  # keeps connections open and answers `Expect: 100-continue`
    disable_nagle_algorithm = True  # the body of an answer would wait 40 ms for the client to confirm its head

    def log_message(self, *_: Any) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # clients may leave when they like
            super().handle()

    def do_GET(self) -> None:
        sent = self.read_body()
        time.sleep(self.server.delay_s)
        with_body = self.command in ("GET", "POST") or "x-amz-copy-source" in self.headers
        unfit = (set() if with_body else {"truncated"}) | (set() if "If-None-Match" in self.headers else {"conflict"})
        unfit |= set() if self.path.endswith("?delete") else {"kept"}
        kind, part = self.server.draw(self.command, self.path, unfit)
        if kind in ERRORS:
            status, code = ERRORS[kind]
            body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>injected</Message></Error>'.encode()
            self.answer(status, code, {"Content-Type": "application/xml", "Content-Length": str(len(body))}, body)
        elif kind == "kept":
            keys = re.findall(rb"<Key>.*?</Key>", sent)
            faults = b"".join(b"<Error>" + key + b"<Code>InternalError</Code></Error>" for key in keys)
            body = b'<?xml version="1.0"?><DeleteResult>' + faults + b"</DeleteResult>"
            self.answer(200, "OK", {"Content-Type": "application/xml", "Content-Length": str(len(body))}, body)
        elif kind != "reset":
            status, reason, headers, body = self.forward(sent)
            if not kind or (kind == "truncated" and body):  # an empty body cannot be cut: a reset it is
                self.answer(status, reason, headers, body[: int(part * len(body))])
        if kind not in ("", "kept", *ERRORS):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, no FIN
            self.close_connection = True

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def read_body(self) -> bytes:
        """Read the body as it is on the wire, with the framing of its chunks where it has them."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            body = self.rfile.read(size := int(self.headers.get("Content-Length", 0)))
            if len(body) < size:
                raise ConnectionAbortedError
            return body
        raw = bytearray(line := self.rfile.readline())
        while size := int(line.partition(b";")[0], 16):
            raw += self.rfile.read(size + 2)
            raw += (line := self.rfile.readline())
        while line not in (b"\r\n", b""):  # trailers, up to an empty line
            raw += (line := self.rfile.readline())
        return bytes(raw)

    def forward(self, body: bytes) -> tuple[int, str, dict[str, str], bytes]:
        """Send the request on as it came and return the answer: status, reason, headers, body; chunks are joined."""
        with closing(http.client.HTTPConnection(self.server.target)) as connection:
            try:
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    connection.putheader(name, value)
                connection.endheaders(body)
                response = connection.getresponse()
                content, headers = response.read(), dict(response.getheaders())
            except OSError as error:  # nothing that was asked for: not to be taken for a client that left
                raise RuntimeError(f"{self.server.target}: {error}") from error
        if headers.pop("Transfer-Encoding", None):
            headers["Content-Length"] = str(len(content))
        headers.pop("Connection", None)  # of this connection, not of the client's
        return response.status, response.reason, headers, content

    def answer(self, status: int, reason: str, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status, reason)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with self.server.lock:
                self.server.sent[self.command] += len(body)
            self.wfile.write(body)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name, default in (("--target", "http://127.0.0.1:5000"), ("--port", 0), ("--share", 0.05), ("--seed", 0)):
        parser.add_argument(name, type=type(default), default=default)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=(*KINDS, *MORE, *REFUSALS))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # before there are threads that could get it
    with FaultyProxy(**vars(parser.parse_args())) as proxy:
        print(proxy.endpoint, flush=True)
        signal.sigwait({signal.SIGTERM})
    counts = {" ".join(key): count for key, count in proxy.injected.items()}
    print(json.dumps({"requests": proxy.requests, "injected": counts}), flush=True)
