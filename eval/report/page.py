"""The report as one self-contained HTML page: tables, bars with intervals, confusion, and clips with their captions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from eval.report import axis as axes
from eval.report import charts, lineage, sections, tables, verdicts
from eval.report.axis import Axis, LineChart
from eval.report.charts import BarChart
from eval.report.headline import Headline, Line, Runs
from eval.results import compare
from pipeline import html
from pipeline.html import Part

TITLE = "Language-audio models side by side"
TEMPLATE = Path(__file__).with_name("report.html.jinja")
BARS = (
    "Bars begin at 0. The line with two ends is the 95 % interval over clips, the dashed one is chance; a dot is one "
    "training run; gray ticks are published numbers."
)

LINES = (
    "The axis is logarithmic. A dot is one training run, the line joins the means over runs, the band is the 95 % interval "
    "over clips of these means; the dashed line is chance."
)


class Captioned(NamedTuple):
    """One clip with the captions of several datasets."""

    key: str
    tags: list[str]
    flac: bytes
    captions: dict[str, str]  # dataset -> its first caption


@dataclass(frozen=True, kw_only=True)
class StageCharts:
    """The headline numbers of one task and stage."""

    title: str
    charts: list[BarChart | LineChart]


def render(runs: Runs, table: Headline, clips: Sequence[Captioned], axis: Axis | None = None) -> str:
    """Return the page for the results with their differences, the headline table, the clips and the axis to show."""
    parts = [part for part in _parts(runs, table, clips, axis) if part.content]
    return html.render(TEMPLATE, title=TITLE, heading=TITLE, parts=parts, runs=list(runs))


def _parts(runs: Runs, table: Headline, clips: Sequence[Captioned], axis: Axis | None) -> list[Part]:
    """Return all parts; one with nothing to show has empty content."""
    explained = f"{tables.EXPLAINED} {tables.APART}" if table.published else tables.EXPLAINED
    differences = f"Differences from {table.runs[0]}"
    return [
        Part(title="Results", kind="headline", content=table, note=explained),
        Part(title="What differs", kind="sentences", content=verdicts.sentences(runs)),
        _tables(differences, tables.differences(runs), note=compare.METHOD),
        *_lines(runs, table, axis),
        Part(title="By task", kind="bars", content=_stages(table, lambda line: charts.bars(line, runs)), note=BARS),
        _tables("More metrics", tables.more(table), note=tables.MORE),
        Part(title="Captions beside their clips", kind="clips", content=clips),
        _tables("How each number was measured", sections.protocol(runs)),
        _tables("Where each model comes from", lineage.rows(runs)),
        _tables("By prompt", *sections.prompts(runs)),
        _tables("By fold", *sections.folds(runs)),
        Part(title="By class", kind="classes", content=sections.per_class(runs)),
        Part(
            title="Confusion",
            kind="confusions",
            content=sections.confusions(runs),
            note="Rows are the true class, columns the guess. Several runs are summed.",
        ),
        _tables("Published numbers", tables.published(table), note=tables.APART),
        Part(title="Configs and versions", kind="json", content=sections.configs(runs)),
    ]


def _lines(runs: Runs, table: Headline, axis: Axis | None) -> list[Part]:
    if axis is None:
        return []
    content = _stages(table, lambda line: axes.chart(line, runs, axis))
    return [Part(title=f"Over {axis.title}", kind="lines", content=content, note=LINES)]


def _tables(title: str, *found: tables.Rows, note: str = "") -> Part:
    """Return a part with those tables that have a row below the header."""
    return Part(title=title, kind="tables", content=[rows for rows in found if rows[1:]], note=note)


def _stages(table: Headline, draw: Callable[[Line], BarChart | LineChart]) -> list[StageCharts]:
    """Return the charts of each task, its stages one after the other."""
    by_task: dict[str, dict[str, list[Line]]] = {}
    for line in table.lines:
        stage, task = line.number.evaluation.split(" ", 1)
        by_task.setdefault(task, {}).setdefault(stage, []).append(line)
    return [
        StageCharts(title=f"{task}: {stage}", charts=[draw(line) for line in lines])
        for task, stages in by_task.items()
        for stage, lines in stages.items()
    ]
