"""Wall time and core time of work that repeats."""

import itertools
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Self


class Timing(NamedTuple):
    """How long some clips took."""

    clips: int
    wall_s: float
    cpu_s: float  # in which cores worked

    def clips_per_core_s(self, tasks_per_core: float) -> float:
        """Return the clips a second of one core: what its arithmetic allows, and what the waiting of its tasks does."""
        return self.clips / max(self.cpu_s, self.wall_s / tasks_per_core)


class Stopwatch:
    """Adds up the wall and core time of `with` blocks; core time is that of the process, ffmpeg's processes included."""

    def __init__(self) -> None:
        """Start at zero."""
        self.wall_s = self.cpu_s = 0.0

    def __enter__(self) -> Self:
        """Start."""
        self.started, self.cpu_started = time.perf_counter(), _cpu_s()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.wall_s += time.perf_counter() - self.started
        self.cpu_s += _cpu_s() - self.cpu_started


def repeat(seconds: float, one: Callable[[int], int], numbers: Iterable[int]) -> Timing:
    """Call with one number after another, from the first again after the last, until the time is over.

    `one` returns how many clips it took.
    """
    watch, clips = Stopwatch(), 0
    for number in itertools.cycle(numbers) if isinstance(numbers, Sequence) else numbers:
        with watch:
            clips += one(number)
        if watch.wall_s >= seconds:
            break
    return Timing(clips, watch.wall_s, watch.cpu_s)


def _cpu_s() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
