"""The application in this process, by uvicorn."""

import logging
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from pipeline.errors import InputError

log = logging.getLogger(__name__)
BACKLOG = 256  # connections that wait to be taken
MAX_CONNECTIONS = 1024
SHUTDOWN_S = 3  # for answers that are under way when the server is stopped


class _Server(uvicorn.Server):
    """Calls a function when it listens."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self.on_start = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_start()


def bind(host: str, port: int) -> socket.socket:
    """Return a socket at an address; port 0 takes a free one.

    Raises:
        InputError: when the address cannot be had.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except socket.gaierror:
        raise InputError("--host", host, "this machine has no such address; use 127.0.0.1 or 0.0.0.0") from None
    except (OSError, OverflowError) as error:
        raise InputError("--port", port, f"{error}; choose another, or 0 for a free one") from None
    return bound


def address(bound: socket.socket) -> str:
    """Return the address of a socket for a browser."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def run(app: ASGIApp, bound: socket.socket, started: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM. Answers that are under way get some seconds to end.

    Raises:
        KeyboardInterrupt: after SIGINT, when the server has stopped.
    """
    # h11 bounds the headers of a request, at 16 kB; httptools, which is faster, does not.
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    _Server(config, started).run(sockets=[bound])
