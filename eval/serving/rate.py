"""Requests by client and second."""

import time
from collections import OrderedDict

BURST_S = 10.0  # seconds' worth of requests that may come at once
MAX_CLIENTS = 4096  # that are remembered; the one that was silent for longest is forgotten first


class RateLimiter:
    """A bucket of tokens for each client. Not for several threads."""

    def __init__(self, per_s: float) -> None:
        """Allow so many requests a second; 0 allows all."""
        self.per_s = per_s
        self.buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client -> (tokens, when, in s)

    def wait_s(self, client: str) -> float:
        """Return 0 and count the request, or the seconds after which the client may send it again."""
        if not self.per_s or (tokens := self._left(client)) >= 1:
            self.charge(client, 1.0)
            return 0.0
        return (1 - tokens) / self.per_s

    def charge(self, client: str, requests: float) -> None:
        """Count requests that are not sent, also more of them than are left."""
        if self.per_s:
            self.buckets[client] = (self._left(client) - requests, time.monotonic())
            self.buckets.move_to_end(client)
            if len(self.buckets) > MAX_CLIENTS:
                self.buckets.popitem(last=False)

    def _left(self, client: str) -> float:
        full, now = max(1.0, self.per_s * BURST_S), time.monotonic()
        tokens, since = self.buckets.get(client, (full, now))
        return min(full, tokens + (now - since) * self.per_s)
