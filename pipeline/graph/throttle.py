"""How many requests a client has under way: fewer when the endpoint asks for time, slowly more while it answers.

The rule is AIMD (additive increase, multiplicative decrease: Chiu & Jain, 1989), as in TCP's congestion control.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Throttle:
    """The places for requests of one client; many threads use it."""

    def __init__(self, max_under_way: int) -> None:
        self.max_under_way, self.limit = max_under_way, float(max_under_way)
        self.under_way, self.narrowed_at = 0, 0.0
        self.changed = threading.Condition()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Wait for a place and hold it."""
        with self.changed:
            self.changed.wait_for(lambda: self.under_way < int(self.limit))
            self.under_way += 1
        try:
            yield
        finally:
            with self.changed:
                self.under_way -= 1
                self.changed.notify_all()

    def narrow(self, sent_at: float) -> None:
        """Halve the places, once for all requests that were under way together.

        Args:
            sent_at: when the request that was put off was sent, by time.monotonic().
        """
        with self.changed:
            if sent_at > self.narrowed_at:
                self.limit, self.narrowed_at = max(1.0, self.limit / 2), time.monotonic()

    def widen(self) -> None:
        """Count an answer: as many as there are places make one place more."""
        with self.changed:
            self.limit = min(float(self.max_under_way), self.limit + 1 / self.limit)
            self.changed.notify_all()
