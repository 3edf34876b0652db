"""The passport of a checkpoint: its number by several protocols, as a table and as one self-contained HTML page."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.report import headline, tables
from eval.report.charts import Bar, BarChart
from eval.report.tables import Rows
from eval.results import compare
from eval.results.model_results import Metric
from eval.results.records import Entry
from pipeline import html
from pipeline.html import Part

TEMPLATE = Path(__file__).with_name("passport.html.jinja")
TITLES = {"accuracy": "accuracy", "map": "mAP"}
HEADER = ["what differs from ours", "protocol", "", "minus ours", "p", "differs"]
NOT_COMPARED = {"ours": "", "fold": "other clips", "X-ARES": "trained on labels"}
EXPLAINED = (
    "Per cent, with the 95 % bootstrap interval over clips. A difference is of the same model on the same clips, its "
    "interval by bootstrap over clips, p two-sided. Nothing is corrected for the number of comparisons. Folds are of other "
    "clips, so that their difference has no such test."
)
OURS = (
    "Ours: the mean of the embeddings of three prompts, the class in words, every part of a clip in windows whose mean "
    "counts, the model's own padding and rate, all clips at once."
)
BARS = "Bars begin at 0. The line with two ends is the 95 % interval over clips, the dashed one is chance."


def rows(entry: Entry) -> Rows:
    """Return all protocols as cells, header first."""
    header = [*HEADER[:2], TITLES[entry["number"]], *HEADER[3:]]
    return [header, *(_row(factor, name, found) for factor, name, found in _protocols(entry))]


def text(entry: Entry) -> str:
    """Return all protocols as plain text."""
    return f"{tables.aligned(rows(entry))}\n\n{OURS}\n{EXPLAINED}"


def render(model: str, task: str, entry: Entry) -> str:
    """Return the page of one evaluation."""
    heading = f"{model} on {task}, by protocol"
    sources = [[name, found["source"]] for _, name, found in _protocols(entry) if "source" in found]
    parts = [
        Part(title="By protocol", kind="bars", content=[_chart(entry)], note=BARS),
        Part(title="What each difference is worth", kind="table", content=rows(entry), note=f"{OURS} {EXPLAINED}"),
        Part(title="Where the protocols come from", kind="table", content=[["protocol", "source"], *sources]),
        Part(title="Clips", kind="table", content=_clips(entry)),
    ]
    return html.render(TEMPLATE, title=heading, heading=heading, parts=parts)


def _protocols(entry: Entry) -> Iterator[tuple[str, str, Any]]:
    for factor, by_name in entry["protocols"].items():
        for name, found in by_name.items():
            yield factor, name, found


def _row(factor: str, name: str, found: Any) -> list[str]:
    shown = headline.show(Metric.from_json(found["number"]), percent=True)
    if "difference" not in found:
        return [factor if factor != "ours" else "", name, shown, "", "", NOT_COMPARED[factor]]
    difference = compare.from_record(found["difference"])
    moved = headline.show(difference, percent=True, sign="+")
    differs = "changes no clip" if found.get("changes_no_clip") else difference.differs
    return [factor, name, shown, moved, tables.probability(difference.p), differs]


def _chart(entry: Entry) -> BarChart:
    factors = list(entry["protocols"])
    bars = []
    for factor, name, found in _protocols(entry):
        number = Metric.from_json(found["number"])
        low, high = number.interval95 or (number.value, number.value)
        bars.append(
            Bar(
                run=name,
                color=factors.index(factor),
                text=headline.show(number, percent=True),
                end=100 * number.value,
                interval=(100 * low, 100 * (high - low)) if number.interval95 else None,
                chance=None if number.chance is None else 100 * number.chance,
                dots=[],
            )
        )
    return BarChart(title=TITLES[entry["number"]], bars=bars, axis=("50 %", "100 %"), published=[], height=0)


def _clips(entry: Entry) -> Rows:
    overlap = "; ".join(
        f"{stage}: {'not known' if count is None else count}" for stage, count in entry["overlap"].items()
    )
    return [
        ["what", "value"],
        ["clips evaluated", f"{entry['n']} of {entry['num_listed']}"],
        ["folds", ", ".join(entry["folds"]) or "all"],
        ["clips that the model was trained or selected on", overlap or "none"],
        ["SHA-256 of the keys of the clips", entry["ids_sha256"]],
        ["evaluated at", entry["evaluated_at"]],
    ]
