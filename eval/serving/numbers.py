"""Prometheus metrics of one process: requests, their time, and the size of the index.

Replicas of Ray Serve have their own numbers, and any of them may answer `/metrics`. So each series has a label `process`.
"""

import os
import socket

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.types import Scope

CONTENT_TYPE = CONTENT_TYPE_LATEST
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
NO_ROUTE = "none"  # paths of strangers make no series


class Numbers:
    """Counts requests."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.process = f"{socket.gethostname()}-{os.getpid()}"
        labels = ("process", "route", "status")
        self.requests = Counter("blat_search_requests", "Answered requests.", labels, registry=self.registry)
        self.seconds = Histogram(
            "blat_search_request_seconds", "Time to answer.", labels[:2], buckets=BUCKETS_S, registry=self.registry
        )
        self.clips = Gauge("blat_search_clips", "Clips in the index.", labels[:1], registry=self.registry)

    def count(self, scope: Scope, status: int, seconds: float) -> None:
        """Count an answer. The route is that which the application chose, without the values in it."""
        route = getattr(scope.get("route"), "path", NO_ROUTE)
        self.requests.labels(self.process, route, str(status)).inc()
        self.seconds.labels(self.process, route).observe(seconds)

    def text(self, clips: int) -> bytes:
        """Return all metrics in the format of Prometheus."""
        self.clips.labels(self.process).set(clips)
        return generate_latest(self.registry)
