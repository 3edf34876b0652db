"""A histogram of whole numbers, laid out in the units of its SVG view box."""

import math
from dataclasses import dataclass

import numpy as np

MAX_BARS = 40
WIDTH, HEIGHT, TOP = 360, 110, 14  # of the bars, and the room above them
MAX_SLOT = 48.0  # width of a bar with the gap behind it
BAR_SHARE = 0.86  # of its slot
MAX_LABELS = 10


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar."""

    x: float
    y: float
    width: float
    height: float
    title: str
    """What it stands for, such as "3 words: 1,200 captions"."""
    label: str
    """Below the bar; not every bar has one."""

    @property
    def middle(self) -> float:
        """Return the x of its middle."""
        return self.x + self.width / 2


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Bars over an axis."""

    title: str
    note: str
    bars: list[Bar]
    width: float
    bottom: int
    """The y of the axis."""
    highest: Bar
    highest_count: int


def build(title: str, counts: dict[int, int], unit: str, things: str) -> Histogram:
    """Return the histogram of {whole number: how often}; bars of one value each, or of as many as make at most 40."""
    low, high = min(counts), max(counts)
    values = math.ceil((high - low + 1) / MAX_BARS)
    starts = range(low, high + 1, values)
    bins = [sum(counts.get(value, 0) for value in range(start, start + values)) for start in starts]
    slot, step = min(MAX_SLOT, WIDTH / len(bins)), math.ceil(len(bins) / MAX_LABELS)
    bars = []
    for i, (start, count) in enumerate(zip(starts, bins, strict=True)):
        height = HEIGHT * count / max(bins)
        span = f"{start}" if values == 1 else f"{start} to {start + values - 1}"
        bars.append(
            Bar(
                x=i * slot,
                y=TOP + HEIGHT - height,
                width=slot * BAR_SHARE,
                height=height,
                title=f"{span} {unit}: {count:,} {things}",
                label="" if i % step else str(start),
            )
        )
    return Histogram(
        title=title,
        note=_note(counts, unit, things),
        bars=bars,
        width=slot * len(bins),
        bottom=TOP + HEIGHT,
        highest=bars[bins.index(max(bins))],
        highest_count=max(bins),
    )


def _note(counts: dict[int, int], unit: str, things: str) -> str:
    ordered = sorted(counts.items())
    sums = np.cumsum([count for _, count in ordered])
    median = ordered[int(np.searchsorted(sums, sums[-1] / 2))][0]
    low, high = ordered[0][0], ordered[-1][0]
    spread = f"{low} to {high} {unit}, median {median}" if low < high else f"{low} {unit}"
    return f"{spread}; {sums[-1]:,} {things}"
