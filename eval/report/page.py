"""The report as one self-contained HTML page: tables, bars with intervals, confusion, and clips to listen to."""

import base64
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, NamedTuple

from eval.report import charts, sections, tables
from eval.report.headline import Cell, Headline, Line
from eval.report.page_style import STYLE
from eval.results import compare

TITLE = "Language-audio models side by side"


class Captioned(NamedTuple):
    """One clip with the captions of several datasets."""

    key: str
    tags: list[str]
    flac: bytes
    captions: dict[str, str]  # dataset -> its first caption


def render(runs: dict[str, Any], table: Headline, clips: Sequence[Captioned]) -> str:
    """Return the page for runs (name -> its results with its differences), the headline table and the clips to show."""
    found = [(title, body) for title, body in _sections(runs, table, clips) if body]
    links = "".join(f'<a href="#s{i}">{escape(title)}</a>' for i, (title, _) in enumerate(found))
    parts = [f'<section id="s{i}"><h2>{escape(title)}</h2>\n{body}</section>' for i, (title, body) in enumerate(found)]
    keys = " &nbsp; ".join(f"{_key(place)}{escape(run)}" for place, run in enumerate(runs))
    lead = (
        f"<h1>{TITLE}</h1><p>{keys}</p><p class='note'>Every number is from results.json beside this page: "
        "run, evaluation, metric.</p>"
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{TITLE}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body>{lead}<nav>{links}</nav>\n" + "\n".join(parts) + "</body></html>\n"
    )


def _sections(runs: dict[str, Any], table: Headline, clips: Sequence[Captioned]) -> Iterator[tuple[str, str]]:
    """Yield title and body of every section; one with nothing to show has an empty body."""
    changed, published = tables.differences(runs), tables.published(table)
    yield "Results", _headline(table)
    yield f"Differences from {table.runs[0]}", sections.table(changed, compare.METHOD) if changed[1:] else ""
    yield "By task", "".join(_tasks(runs, table))
    yield "More metrics", sections.table(tables.more(table), tables.MORE) if table.more else ""
    yield "Captions to read and hear", _clips(clips)
    yield "How each number was measured", sections.table(sections.protocol(runs))
    yield "Where each model comes from", sections.table(sections.lineage(runs))
    yield "By prompt", "".join(sections.prompts(runs))
    yield "By fold", "".join(sections.folds(runs))
    yield "By class", "".join(sections.per_class(runs))
    confused = "".join(sections.confusions(runs))
    yield "Confusion", f"<p class='note'>Rows are the true class, columns the guess.</p>{confused}" if confused else ""
    yield "Published numbers", sections.table(published, tables.APART) if published[1:] else ""
    yield "Configs and versions", "".join(sections.configs(runs))


def _key(place: int) -> str:
    return f'<span class="key" style="background:{charts.color(place)}"></span>'


def _headline(table: Headline) -> str:
    runs = "".join(f"<th>{_key(place)}{escape(run)}</th>" for place, run in enumerate(table.runs))
    last = "<th>published</th>" if table.published else ""
    lines = "".join(_line(table, line) for line in table.lines)
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.footnotes)
    apart = f" {tables.APART}" if last else ""
    return (
        f'<div class="card"><div class="scroll"><table><tr><th></th><th>chance</th>{runs}{last}</tr>{lines}</table></div>'
        f'<p class="note">{escape(tables.EXPLAINED + apart)}</p><ul class="notes">{notes}</ul></div>'
    )


def _line(table: Headline, line: Line) -> str:
    cells = "".join(f'<td class="n">{_cell(cell)}</td>' for cell in line.cells)
    cited = "<br>".join(escape(table.cite(each)) for each in line.published)
    last = f'<td class="n"><small>{cited}</small></td>' if table.published else ""
    title = f"{escape(line.number.evaluation)}: <b>{escape(line.number.title)}</b>"
    return f'<tr><td>{title}</td><td class="n">{line.chance}</td>{cells}{last}</tr>'


def _cell(cell: Cell) -> str:
    value, _, interval = cell.text.partition(" ")
    mark = f'<sup class="mark">{cell.mark}</sup>' if cell.mark else ""
    return f"<b>{escape(value)}</b>{mark} <small>{escape(interval)}</small>"


def _tasks(runs: dict[str, Any], table: Headline) -> Iterator[str]:
    """Yield a card of bars for each task, its stages one after the other."""
    by_task: dict[str, dict[str, list[Line]]] = {}
    for line in table.lines:
        stage, task = line.number.evaluation.split(" ", 1)
        by_task.setdefault(task, {}).setdefault(stage, []).append(line)
    yield (
        '<p class="note">Bars begin at 0. The line with two ends is the 95 % interval, the dashed one chance; gray ticks '
        "are published numbers.</p>"
    )
    for task, stages in by_task.items():
        for stage, lines in stages.items():
            body = "".join(charts.bars(line, runs) for line in lines)
            yield f'<div class="card"><h3>{escape(task)}: {escape(stage)}</h3>{body}</div>'


def _clips(clips: Sequence[Captioned]) -> str:
    if not clips:
        return ""
    names = list(clips[0].captions)
    head = "".join(f"<th>{escape(name)}</th>" for name in ("clip", "tags", *names))
    lines = []
    for clip in clips:
        data = base64.b64encode(clip.flac).decode()
        player = f'<audio controls preload="none" src="data:audio/flac;base64,{data}"></audio>'
        cells = "".join(f"<td>{escape(clip.captions[name])}</td>" for name in names)
        tags = escape(", ".join(clip.tags))
        lines.append(f"<tr><td>{player}<br><code>{escape(clip.key)}</code></td><td>{tags}</td>{cells}</tr>")
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div>'
