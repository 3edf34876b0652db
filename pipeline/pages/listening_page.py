"""The listening page: one HTML file with clips to hear and see beside their captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline import audio, html
from pipeline.audio import spectrogram
from pipeline.dataset.phrases import Phrase
from pipeline.html import Part
from pipeline.pages import histogram
from pipeline.pages.histogram import Histogram

TEMPLATE = Path(__file__).with_suffix(".html.jinja")
SCRIPT = Path(__file__).with_suffix(".js")
NUM_TAGS = 25  # rows of the chart of tags


class Caption(NamedTuple):
    """One caption, and how it was made."""

    text: str
    notes: list[str]  # such as "beam 3", "score -0.41", "without tags"
    flags: list[str]  # notes that stand out, such as "mentions Dog, not tagged"


class Sample(NamedTuple):
    """One clip."""

    key: str
    source_id: str
    tags: list[str]
    flac: bytes
    captions: list[Caption]
    phrases: Sequence[Phrase] = ()  # with their times, where they are known


class Section(NamedTuple):
    """Clips under one heading."""

    title: str
    note: str
    samples: list[Sample]


class Facts(NamedTuple):
    """Numbers of the whole dataset."""

    title: str
    headline: list[tuple[str, str]]  # (number, what it counts), such as ("1,200", "clips written")
    tags: dict[str, int]  # tag -> clips
    lengths: dict[int, int]  # words -> captions
    durations: dict[int, int]  # whole seconds -> clips
    captioners: dict[str, int] = {}  # captioner -> clips whose first caption is of it


@dataclass(frozen=True, kw_only=True)
class ClipView:
    """One clip with what is drawn of it."""

    sample: Sample
    seconds: float
    picture: bytes
    """PNG of its spectrogram."""


@dataclass(frozen=True, kw_only=True)
class CountChart:
    """How many clips each name has, such as the most frequent tags."""

    title: str
    note: str
    rows: list[tuple[str, int, float]]
    """Name, clips, and its bar's width in per cent."""


@dataclass(frozen=True, kw_only=True)
class Charts:
    """What is in the dataset; there is no chart of nothing."""

    counts: list[CountChart]
    histograms: list[Histogram]


def render(facts: Facts, sections: Sequence[Section]) -> str:
    """Return the page; the same input gives the same text.

    Raises:
        audio.AudioError: when a sample's bytes are no audio.
    """
    parts = [
        Part(
            title=section.title, note=section.note, kind="clips", content=[_view(sample) for sample in section.samples]
        )
        for section in sections
    ]
    charts = _charts(facts)
    if charts.counts or charts.histograms:
        parts.append(Part(title="What is in it", kind="charts", content=charts))
    return html.render(
        TEMPLATE,
        title=f"{facts.title}: listening page",
        heading=facts.title,
        parts=parts,
        scripts=(html.PLAYER, SCRIPT),
        figures=facts.headline,
        lowest_hz=f"{spectrogram.LOWEST_HZ:.0f}",
        range_db=f"{spectrogram.RANGE_DB:.0f}",
        picture_size=(spectrogram.COLUMNS, spectrogram.ROWS),
    )


def _view(sample: Sample) -> ClipView:
    samples = audio.decode(sample.flac)
    picture = spectrogram.draw(samples, audio.SAMPLE_RATE_HZ)
    return ClipView(sample=sample, seconds=len(samples) / audio.SAMPLE_RATE_HZ, picture=picture)


def _charts(facts: Facts) -> Charts:
    """Return the charts of what varies."""
    histograms = [histogram.build("Caption length", facts.lengths, "words", "captions")] if facts.lengths else []
    if len(facts.durations) > 1:
        histograms.append(histogram.build("Clip duration", facts.durations, "s", "clips"))
    counts = []
    if facts.tags:
        top = sorted(facts.tags.items(), key=lambda item: (-item[1], item[0]))[:NUM_TAGS]
        number = len(facts.tags)
        shown = f"the {len(top)} most frequent of {number:,} tags" if len(top) < number else f"{number} tags"
        counts.append(_count_chart("Tags", f"Clips with each of {shown}", top))
    if facts.captioners:
        ranked = sorted(facts.captioners.items(), key=lambda item: (-item[1], item[0]))
        counts.append(_count_chart("Captioners", "Clips whose first caption each of them wrote", ranked))
    return Charts(counts=counts, histograms=histograms)


def _count_chart(title: str, note: str, counts: Sequence[tuple[str, int]]) -> CountChart:
    rows = [(name, count, max(0.5, 100 * count / max(1, counts[0][1]))) for name, count in counts]
    return CountChart(title=title, note=note, rows=rows)
