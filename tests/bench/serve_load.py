"""Load on `eval serve`: `python -m tests.bench.serve_load --index INDEX [--seconds 30 --clients 16]`.

Starts the stage as a process on this machine. Each client asks in turn, as a page does: a search by one of the texts, then
the picture and the beginning of the sound of one result. Prints requests a second, their median and 99th percentile, errors,
and the memory of the server before and after.
"""

import argparse
import http.client
import json
import random
import re
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from tests.support.serving import Server, served

TEXTS = ("rain", "a dog barks", "a siren in the distance", "a bell is struck", "wind", "a train passes", "people talk")
WARM_UP_S = 3.0


class Request(NamedTuple):
    """One request of a client."""

    kind: str
    seconds: float
    ok: bool


def client(server: Server, until: float, seed: int, made: list[Request]) -> None:
    """Ask until a time."""
    rng = random.Random(seed)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

    def ask(kind: str, path: str, wanted: int, **headers: str) -> bytes:
        started = time.monotonic()
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            body, ok = response.read(), response.status == wanted
        except (OSError, http.client.HTTPException):
            connection.close()
            body, ok = b"", False
        made.append(Request(kind, time.monotonic() - started, ok))
        return body

    while time.monotonic() < until:
        body = ask("search", f"/api/search?text={quote(rng.choice(TEXTS))}&k=20", 200)
        if not body:
            continue
        clip = rng.choice(json.loads(body)["results"])["id"]
        ask("picture", f"/api/clips/{clip}/spectrogram.png", 200)
        ask("sound", f"/api/clips/{clip}/audio", 206, Range="bytes=0-65535")


def memory_mb(server: Server) -> float:
    """Return the resident memory of the server, in MB of 1,000,000 bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024 / 1e6


def load(server: Server, seconds: float, clients: int) -> list[Request]:
    """Ask with several clients at once; return what they asked for."""
    made: list[Request] = []
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=client, args=(server, until, seed, made)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made


def main() -> int:
    """Print the table; return 1 when a request failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", required=True)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--replicas", default="0")
    arguments = parser.parse_args()
    with served(arguments.index, "--limits.rate", "0", "--replicas", arguments.replicas) as server:
        load(server, WARM_UP_S, arguments.clients)
        before, started = memory_mb(server), time.monotonic()
        made = load(server, arguments.seconds, arguments.clients)
        took, after = time.monotonic() - started, memory_mb(server)
    print("| requests | a second | p50, ms | p99, ms | errors |\n|---|---|---|---|---|")
    for kind in ("search", "picture", "sound", ""):
        chosen = [each for each in made if kind in ("", each.kind)]
        p50, p99 = 1000 * np.percentile([each.seconds for each in chosen], [50, 99])
        errors = sum(not each.ok for each in chosen)
        print(f"| {kind or 'all'}: {len(chosen):,} | {len(chosen) / took:.1f} | {p50:.0f} | {p99:.0f} | {errors} |")
    print(f"memory of the server: {before:.0f} MB before, {after:.0f} MB after")
    return int(any(not each.ok for each in made))


if __name__ == "__main__":
    sys.exit(main())
