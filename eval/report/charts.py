"""Bars with intervals, chance and published numbers, and confusion as a heat map: HTML and SVG that load nothing."""

from collections.abc import Sequence
from html import escape
from typing import Any

from eval.report import headline
from eval.report.headline import Line
from eval.report.page_style import NUM_COLORS
from eval.results.references import Reference

MOST_CLASSES = 60  # of a heat map that can still be read
FEW_CLASSES = 25  # up to here the cells are wide enough for their counts
NUM_PAIRS = 20
RUNG = 17  # pixels from one published number's label to the next
LABEL_SHARE = 0.35  # of the scale
LETTER = 6.2  # pixels, of the labels of a heat map


def color(place: int) -> str:
    """Return the color of the run in this place, the same on the whole page."""
    return f"var(--m{place % NUM_COLORS})"


def bars(line: Line, runs: dict[str, Any]) -> str:
    """Return a bar for each run that has the number, over one scale, with the published numbers as labelled ticks."""
    found = {name: headline.find(run, line.number) for name, run in runs.items()}
    full = _scale(line, [metric for metric in found.values() if metric])
    ticks = "".join(f'<i class="ref" style="left:{_at(each.value, full)}"></i>' for each in line.published)
    parts = [f"<h4>{escape(line.number.title)}</h4>"]
    for place, (name, metric) in enumerate(found.items()):
        if metric:
            shown = escape(str(line.cells[place]))
            parts.append(
                f'<div class="row"><span>{escape(name)}</span><div class="track">'
                f"{_bar(metric, full, line.number.percent, place)}{ticks}</div>"
                f'<span class="n">{shown}</span></div>'
            )
    return "".join([*parts, _axis(full, line.number.percent), _ladder(line.published, full)])


def _scale(line: Line, found: Sequence[dict[str, Any]]) -> float:
    """Return where the scale ends: 100 per cent, or the next half above all bars."""
    if line.number.percent:
        return 100.0
    top = max(max(metric["value"], *metric.get("interval95", ())) for metric in found)
    return max(0.5, (int(2 * top) + 1) / 2)


def _at(value: float, full: float) -> str:
    return f"{min(max(100 * value / full, 0), 100):.2f}%"


def _bar(metric: dict[str, Any], full: float, percent: bool, place: int) -> str:
    times = 100 if percent else 1
    parts = [f'<i class="fill" style="width:{_at(times * metric["value"], full)};background:{color(place)}"></i>']
    if "interval95" in metric:
        low, high = (times * bound for bound in metric["interval95"])
        parts.append(f'<i class="range" style="left:{_at(low, full)};width:{_at(high - low, full)}"></i>')
    if "chance" in metric:
        parts.append(f'<i class="chance" style="left:{_at(times * metric["chance"], full)}" title="chance"></i>')
    return "".join(parts)


def _axis(full: float, percent: bool) -> str:
    unit = " %" if percent else ""
    ends = f'<span style="left:0">0</span><span style="right:0">{full:g}{unit}</span>'
    middle = f'<span style="left:50%;transform:translateX(-50%)">{full / 2:g}{unit}</span>'
    return f'<div class="row"><span></span><div class="axis">{ends}{middle}</div><span></span></div>'


def _ladder(published: Sequence[Reference], full: float) -> str:
    """Return the labels of the ticks, one below the other, and so ordered that no tick runs through another's label."""
    if not published:
        return ""
    edge = LABEL_SHARE * full  # left of it there is no room for a label on the left
    rising = sorted(published, key=lambda each: each.value)
    ordered = [each for each in reversed(rising) if each.value < edge] + [each for each in rising if each.value >= edge]
    parts = []
    for rung, each in enumerate(ordered):
        at = _at(each.value, full)
        side = f"left:{at}" if each.value < edge else f"right:{_at(full - each.value, full)}"
        parts.append(f'<i style="left:{at};height:{(rung + 1) * RUNG - 5}px"></i>')
        parts.append(f'<span style="{side};top:{rung * RUNG}px">{escape(f"{each.model} {each.value}")}</span>')
    height = len(published) * RUNG + 4
    return (
        f'<div class="row"><span class="note">published</span><div class="ladder" style="height:{height}px">'
        f"{''.join(parts)}</div><span></span></div>"
    )


def confusion(classes: Sequence[str], counts: Sequence[Sequence[int]], place: int) -> str:
    """Return a heat map, rows the true classes and columns the guesses; of many classes the most frequent mistakes."""
    return _heat(classes, counts, place) if len(classes) <= MOST_CLASSES else _mistakes(classes, counts)


def _heat(classes: Sequence[str], counts: Sequence[Sequence[int]], place: int) -> str:
    cell = 26 if len(classes) <= FEW_CLASSES else 15
    margin = 14 + LETTER * max(len(name) for name in classes)
    size = margin + cell * len(classes) + 2
    parts = []
    for i, (name, row) in enumerate(zip(classes, counts, strict=True)):
        middle = margin + (i + 0.5) * cell
        parts.append(f'<text x="{margin - 6:.0f}" y="{middle + 4:.1f}" text-anchor="end">{escape(name)}</text>')
        parts.append(
            f'<text transform="translate({middle + 4:.1f} {margin - 6:.0f}) rotate(-90)">{escape(name)}</text>'
        )
        parts += [
            _square(margin + j * cell, margin + i * cell, cell, count / sum(row), f"{name}: {count} as {guess}", place)
            + (_count(margin + (j + 0.5) * cell, middle, count) if cell > 15 else "")
            for j, (guess, count) in enumerate(zip(classes, row, strict=True))
            if count
        ]
    frame = f'<rect x="{margin:.0f}" y="{margin:.0f}" width="{cell * len(classes)}" height="{cell * len(classes)}"'
    parts.insert(0, f'{frame} fill="var(--track)"/>')
    return (
        f'<div class="heat"><svg width="{size:.0f}" height="{size:.0f}" role="img" '
        f'aria-label="confusion of classes">{"".join(parts)}</svg></div>'
    )


def _square(x: float, y: float, cell: int, share: float, label: str, place: int) -> str:
    opacity = 0.12 + 0.88 * share
    return (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{cell - 1}" height="{cell - 1}" fill="{color(place)}" '
        f'fill-opacity="{opacity:.2f}"><title>{escape(label)}</title></rect>'
    )


def _count(x: float, y: float, count: int) -> str:
    return f'<text class="count" x="{x:.1f}" y="{y + 3.5:.1f}" text-anchor="middle">{count}</text>'


def _mistakes(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    pairs = [
        (count, sum(row), name, guess)
        for name, row in zip(classes, counts, strict=True)
        for guess, count in zip(classes, row, strict=True)
        if count and guess != name
    ]
    worst = sorted(pairs, key=lambda pair: (-pair[0], pair[2], pair[3]))[:NUM_PAIRS]
    lines = (
        f"<tr><td>{escape(name)}</td><td>{escape(guess)}</td><td class='n'>{count} of {total}</td></tr>"
        for count, total, name, guess in worst
    )
    head = "<tr><th>true class</th><th>guessed</th><th>clips</th></tr>"
    return f'<div class="scroll"><table>{head}{"".join(lines)}</table></div>'
