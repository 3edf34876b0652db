"""The rate of a job from the moments at which its shards were done."""

import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

TAIL = 8  # shards at the end of a job, of which none is read any more while they are written


class Arrivals(NamedTuple):
    """When the shards of a job came back, by one clock, in seconds."""

    started: float
    """When the first shard was asked for."""
    shards: list[tuple[float, int]]
    """When each was done, and its clips."""


def collect(rows: Iterable[Mapping[str, Any]]) -> Arrivals:
    """Take the rows of `engine.rows`, which begins when the first is asked for."""
    started = time.perf_counter()
    return Arrivals(started, [(time.perf_counter(), row["written"]) for row in rows])


def whole_rate(job: Arrivals) -> float:
    """Return the clips a second from the start to the last shard.

    A window within a job in this process would show too much: its engine fetches the next shard before it hands over the
    last one, so that arrivals lag behind the work, and what waits comes at once at the end.
    """
    return sum(clips for _, clips in job.shards) / (job.shards[-1][0] - job.started)


def steady_rate(job: Arrivals, tail: int = TAIL) -> float:
    """Return the clips a second between the shard that ends the first half and the one that `tail` shards follow.

    Start-up is before the window. Shards are in flight at both of its ends, as many at the one as at the other.

    Raises:
        ValueError: when the job has no such window.
    """
    first, last = len(job.shards) // 2 - 1, len(job.shards) - tail - 1
    if not 0 <= first < last:
        raise ValueError(f"{len(job.shards)} shards have no steady window; use more than {2 * tail}")
    return sum(clips for _, clips in job.shards[first + 1 : last + 1]) / (job.shards[last][0] - job.shards[first][0])
