"""Layout of the charts: bars with intervals, chance and published numbers, and the confusion of classes."""

from collections.abc import Sequence
from dataclasses import dataclass

from eval.report import headline
from eval.report.headline import Line, Runs
from eval.results.model_results import Metric
from eval.results.references import Reference

MAX_CLASSES = 60  # of a heat map that can still be read
MAX_COUNTED_CLASSES = 25  # up to here the cells are wide enough for their counts
NUM_PAIRS = 20
STEP = 17  # pixels from one published number's label to the next
LABEL_SHARE = 0.35  # of the scale
LETTER = 6.2  # pixels, of the labels of a heat map


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One model's number; positions are in per cent of the scale."""

    run: str
    color: int
    """Index of the model."""
    text: str
    end: float
    interval: tuple[float, float] | None
    """Start and length."""
    chance: float | None
    dots: list[float]
    """The number of each run, where there are several."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """A published number below the bars; pixels from the top, per cent of the scale."""

    text: str
    at: float
    to_the_right: bool
    """Whether the label stands on the right of its tick."""
    top: int
    tick: int
    """Length of the tick that leads to it."""


@dataclass(frozen=True, kw_only=True)
class BarChart:
    """One number of all models that have it, over one scale."""

    title: str
    bars: list[Bar]
    axis: tuple[str, str]
    """Middle and end of the scale."""
    published: list[Label]
    height: int
    """Of the labels in pixels."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Clips of one true class with one guess; pixels."""

    x: float
    y: float
    opacity: float
    title: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Heat:
    """Confusion as a heat map, rows the true classes and columns the guesses; pixels."""

    color: int
    """Index of the model."""
    labels: list[tuple[str, float]]
    """Class, and the middle of its row and column."""
    cells: list[Cell]
    margin: float
    cell: int
    extent: int
    counted: bool
    """Whether a cell has room for its count."""


@dataclass(frozen=True, kw_only=True)
class Mistakes:
    """The most frequent mistakes, where a heat map of all classes would be too large."""

    rows: list[tuple[str, ...]]
    """Cells of a table, header first."""


def bars(line: Line, runs: Runs) -> BarChart:
    """Return a bar for each model that has the number, with the published numbers as labelled ticks."""
    metrics = {name: metric for name, run in runs.items() if (metric := headline.find(run, line.number))}
    scale = _scale(line, list(metrics.values()))
    times = 100 / scale * (100 if line.number.percent else 1)
    unit = " %" if line.number.percent else ""
    return BarChart(
        title=line.number.title,
        bars=[
            _bar(name, i, str(cell), metrics[name], times)
            for i, (name, cell) in enumerate(zip(runs, line.cells, strict=True))
            if name in metrics
        ],
        axis=(f"{scale / 2:g}{unit}", f"{scale:g}{unit}"),
        published=_labels(line.published, scale),
        height=len(line.published) * STEP + 4,
    )


def _bar(run: str, color: int, text: str, metric: Metric, times: float) -> Bar:
    interval = None
    if metric.interval95:
        low, high = metric.interval95
        interval = _clip(times * low), _clip(times * (high - low))
    chance = None if metric.chance is None else _clip(times * metric.chance)
    dots = [_clip(times * value) for value in metric.runs if len(metric.runs) > 1]
    return Bar(
        run=run, color=color, text=text, end=_clip(times * metric.value), interval=interval, chance=chance, dots=dots
    )


def _scale(line: Line, metrics: Sequence[Metric]) -> float:
    """Return where the scale ends: 100 per cent, or the next half above all bars."""
    if line.number.percent:
        return 100.0
    top = max(max(metric.value, *(metric.interval95 or ()), *metric.runs) for metric in metrics)
    return max(0.5, (int(2 * top) + 1) / 2)


def _clip(percent: float) -> float:
    return min(max(percent, 0), 100)


def _labels(published: Sequence[Reference], scale: float) -> list[Label]:
    """Return the labels of the ticks, one below the other, and so ordered that no tick runs through another's label."""
    edge = LABEL_SHARE * scale  # left of it there is no room for a label on the left
    rising = sorted(published, key=lambda reference: reference.value)
    left = [reference for reference in rising if reference.value < edge]
    ordered = [*reversed(left), *rising[len(left) :]]
    return [
        Label(
            text=f"{reference.model} {reference.value}",
            at=_clip(100 * reference.value / scale),
            to_the_right=reference.value < edge,
            top=i * STEP,
            tick=(i + 1) * STEP - 5,
        )
        for i, reference in enumerate(ordered)
    ]


def confusion(classes: Sequence[str], counts: Sequence[Sequence[int]], color: int) -> Heat | Mistakes:
    """Return a heat map, or of many classes the most frequent mistakes; `color` is the index of the model."""
    return _heat(classes, counts, color) if len(classes) <= MAX_CLASSES else _mistakes(classes, counts)


def _heat(classes: Sequence[str], counts: Sequence[Sequence[int]], color: int) -> Heat:
    counted = len(classes) <= MAX_COUNTED_CLASSES
    cell = 26 if counted else 15
    margin = 14 + LETTER * max(map(len, classes))
    cells = [
        Cell(
            x=margin + j * cell,
            y=margin + i * cell,
            opacity=0.12 + 0.88 * count / sum(row),
            title=f"{name}: {count} as {guess}",
            count=count,
        )
        for i, (name, row) in enumerate(zip(classes, counts, strict=True))
        for j, (guess, count) in enumerate(zip(classes, row, strict=True))
        if count
    ]
    return Heat(
        color=color,
        labels=[(name, margin + (i + 0.5) * cell) for i, name in enumerate(classes)],
        cells=cells,
        margin=margin,
        cell=cell,
        extent=cell * len(classes),
        counted=counted,
    )


def _mistakes(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Mistakes:
    pairs = [
        (count, sum(row), name, guess)
        for name, row in zip(classes, counts, strict=True)
        for guess, count in zip(classes, row, strict=True)
        if count and guess != name
    ]
    worst = sorted(pairs, key=lambda pair: (-pair[0], pair[2], pair[3]))[:NUM_PAIRS]
    rows = [(name, guess, f"{count} of {total}") for count, total, name, guess in worst]
    return Mistakes(rows=[("true class", "guessed", "clips"), *rows])
