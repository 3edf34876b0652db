"""Measure a thing beside its limit or its peer: both in turn, in one run, so that a load of the machine meets both.

A measurement is a function that yields a `Row` for each figure. It takes a folder to work in and the sizes.
"""

import os
import statistics
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

CORES = len(os.sched_getaffinity(0))


class Spread(NamedTuple):
    """The median of several repetitions, and their extremes."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of one or more values."""
        return cls(statistics.median(values), min(values), max(values))


class Comparison(NamedTuple):
    """What was measured of two that ran in turn."""

    ours: Spread
    peer: Spread
    ratio: Spread  # of ours to peer, pair by pair


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    what: str
    ours: str
    """What was measured of ours, with its unit."""
    peer: str = ""
    """What was measured of the limit or the peer; empty where the target is no ratio."""
    found: Spread
    """What the target bounds: a ratio where `unit` is empty."""
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def verdict(self) -> str:
        """Return met or missed, judged by the median; empty where there is no target."""
        if self.at_least is None and self.at_most is None:
            return ""
        low = self.at_least is None or self.found.median >= self.at_least
        high = self.at_most is None or self.found.median <= self.at_most
        return "met" if low and high else "missed"

    @property
    def target(self) -> str:
        """Return the target with its sign."""
        bounds = ((">=", self.at_least), ("<=", self.at_most))
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)

    def markdown(self) -> str:
        """Return the line of the table; `HEAD` names its columns."""
        median, low, high = (f"{value:.3g}" for value in self.found)
        cells = (self.what, f"{median} {self.unit}".strip(), f"{low}..{high}", self.target, self.verdict)
        return f"| {' | '.join(cells)} |"

    def detail(self) -> str:
        """Return what was measured of both, as an item of a list with lines of at most 120 characters."""
        both = f"{self.ours} beside {self.peer}" if self.peer else self.ours
        return textwrap.fill(f"- {self.what}: {both}", 120, subsequent_indent="  ", break_on_hyphens=False)


HEAD = "| what | ratio or figure | spread | target | result |\n|---|---|---|---|---|"


def measure_in_turn(measures: Sequence[Callable[[], float]], repeats: int) -> list[list[float]]:
    """Call all in turn, each `repeats` times; return the figures of each. Every other turn goes backwards."""
    found: list[list[float]] = [[] for _ in measures]
    for repeat in range(repeats):
        turn = list(zip(measures, found, strict=True))
        for measure, figures in reversed(turn) if repeat % 2 else turn:
            figures.append(measure())
    return found


def compare(ours: Sequence[float], peer: Sequence[float]) -> Comparison:
    """Compare figures that were measured in turn."""
    return Comparison(Spread.of(ours), Spread.of(peer), Spread.of([a / b for a, b in zip(ours, peer, strict=True)]))


def alternate(ours: Callable[[], float], peer: Callable[[], float], repeats: int) -> Comparison:
    """Measure both in turn, each `repeats` times; each returns its own figure. Which is first changes from pair to pair."""
    return compare(*measure_in_turn((ours, peer), repeats))


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes, by the wall clock."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
