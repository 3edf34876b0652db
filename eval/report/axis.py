"""Layout of the line charts: a headline number over a quantity that the recipes differ in, on a logarithmic axis."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from eval.report import headline
from eval.report.headline import Line, Runs
from eval.results.model_results import Metric

WIDTH, HEIGHT = 440, 230  # pixels of the viewBox
LEFT, RIGHT, TOP, BOTTOM = 38, 16, 10, 36  # margins of the frame
MAX_STEPS = 6  # between the lines of the scale


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A quantity that the recipes differ in, such as the number of training clips."""

    title: str
    values: Mapping[str, float]
    """Name of a recipe as it is shown -> its value, above 0."""


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One run; pixels."""

    x: float
    y: float
    color: int
    """Index of the recipe."""
    title: str


@dataclass(frozen=True, kw_only=True)
class LineChart:
    """One number over the axis; pixels."""

    title: str
    axis_title: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    mean: str
    """Points of the line through the means."""
    band: str
    """Points of the polygon between the bounds of the intervals over clips; empty where a mean has none."""
    dots: list[Dot]
    chance: float | None


def chart(line: Line, runs: Runs, axis: Axis) -> LineChart:
    """Return the line chart of a number that at least one recipe has."""
    color = {name: i for i, name in enumerate(runs)}
    measured = {name: metric for name, run in runs.items() if (metric := headline.find(run, line.number))}
    rising = sorted(measured, key=lambda name: axis.values[name])
    times = 100 if line.number.percent else 1
    x = _positions([axis.values[name] for name in rising])
    ticks = _ticks(times * value for metric in measured.values() for value in _values(metric))
    bounds = [measured[name].interval95 for name in rising]

    def y(value: float) -> float:
        share = (times * value - ticks[0]) / (ticks[-1] - ticks[0])
        return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)

    band = [(at, bound) for at, bound in zip(x, bounds, strict=True) if bound]
    edges = [(at, high) for at, (_, high) in band] + [(at, low) for at, (low, _) in reversed(band)]
    chance = measured[rising[0]].chance
    return LineChart(
        title=line.number.title,
        axis_title=axis.title,
        x_ticks=[(at, f"{axis.values[name]:,g}") for at, name in zip(x, rising, strict=True)],
        y_ticks=[(y(tick / times), f"{tick:g}") for tick in ticks],
        mean=_points([(at, y(measured[name].value)) for at, name in zip(x, rising, strict=True)]),
        band=_points([(at, y(bound)) for at, bound in edges]) if all(bounds) else "",
        dots=[
            Dot(x=at, y=y(value), color=color[name], title=f"{name}: {times * value:.{line.number.digits}f}")
            for at, name in zip(x, rising, strict=True)
            for value in measured[name].runs or (measured[name].value,)
        ],
        chance=y(chance) if chance is not None and ticks[0] <= times * chance <= ticks[-1] else None,
    )


def _values(metric: Metric) -> Sequence[float]:
    """Return all values that the chart of a number must reach."""
    return [metric.value, *metric.runs, *(metric.interval95 or ())]


def _positions(values: Sequence[float]) -> list[float]:
    """Return the pixels of rising values on the logarithmic axis; a single one stands in the middle."""
    logs = [math.log(value) for value in values]
    span, room = logs[-1] - logs[0], WIDTH - LEFT - RIGHT - 40
    return [round(LEFT + 20 + room * ((log - logs[0]) / span if span else 0.5), 1) for log in logs]


def _ticks(values: Iterable[float]) -> list[float]:
    """Return round numbers at equal steps that hold all values between them.

    >>> _ticks([41.0, 97.3])
    [40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0]
    >>> _ticks([0.0, 0.41])
    [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    """
    low, high = min(found := list(values)), max(found)
    sizes = (base * 10.0**power for power in range(-3, 6) for base in (1, 2, 5))
    step = next(size for size in sizes if math.ceil(high / size) - math.floor(low / size) <= MAX_STEPS)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [round(i * step, 6) for i in range(first, last + 1)]


def _points(pairs: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in pairs)
