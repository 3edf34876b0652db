"""Show what a source lists, in seconds and before any job: `python -m pipeline inspect --source X`.

Lists the clips as `plan`, `index`, `train` and `eval` do, for two seconds at most, and checks the audio of the first clips.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline import errors, sources, storage
from pipeline.sources import columns, formats, parts
from pipeline.sources.clip import Clip
from pipeline.sources.listing_stats import ListingStats
from pipeline.sources.parts import Part
from pipeline.sources.tables import Options

LIMIT_S = 2.0  # of listing
SHOWN_CLIPS, SHOWN_TAGS, SHOWN_PARTS = 10, 10, 5
MAX_CELL = 60  # letters of a caption or file name that are shown
KIND_NAMES = {
    "tar": "tar", "parquet": "Parquet file", "macs": "MACS.yaml", "table": "table", "json": "JSON file",
    "folder": "folder of audio files", "classes": "dataset with folders of classes", "file": "audio file",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Show the kind, columns and clips of a source, and what would be skipped."""

    source: str = ""
    """Where the clips are: a table, a folder, tars or Parquet files."""
    columns: str = ""
    """Columns of a table that are named otherwise, as in file=path,labels=tags; `start=` leaves a role out."""
    folds: tuple[str, ...] = ()
    """Keep only rows with one of these values in the fold column; empty keeps all."""


@dataclass
class Sample:
    """The part of a source that is listed within the time limit."""

    parts: list[Part]
    read: int  # parts that are listed to their end
    clips: list[Clip]
    stats: ListingStats


def run(config: InspectConfig) -> None:
    """Print a description of the source."""
    print(describe(config))


def describe(config: InspectConfig) -> str:
    """Return a description of the source for people. Raises InputError as `sources.list_clips` does."""
    if not config.source:
        raise errors.InputError("--source", config.source, sources.SOURCE_HINT)
    options = Options(columns=columns.parse(config.columns))
    with sources.readable(config.source, "--source"):
        found = _list(config, options)
        if len({clip.key for clip in found.clips}) < len(found.clips):
            found = _list(config, Options(columns=options.columns, holds_all=True))
        return "\n".join(_lines(config, found))


def _list(config: InspectConfig, options: Options) -> Sample:
    found = Sample(parts.find_parts(storage.resolve(config.source)), 0, [], ListingStats())
    started = time.monotonic()
    for part in found.parts:
        stats, clips = formats.list_part(part, options)
        for clip in formats.kept(clips, config.folds, stats):
            found.clips.append(clip)
            if time.monotonic() - started > LIMIT_S:
                break
        else:
            found.read += 1
        found.stats.add(stats)
        if time.monotonic() - started > LIMIT_S:
            break
    return found


def _lines(config: InspectConfig, found: Sample) -> Iterator[str]:
    clips, stats = found.clips, found.stats
    names = [part.name or "." for part in found.parts[:SHOWN_PARTS]]
    more = f" and {len(found.parts) - SHOWN_PARTS:,} more" if len(found.parts) > SHOWN_PARTS else ""
    kind_counts = Counter(KIND_NAMES.get(part.kind, part.kind) for part in found.parts)
    yield f"source   {config.source}"
    kinds = ", ".join(f"{n:,} x {kind}" if n > 1 else kind for kind, n in kind_counts.items())
    yield f"kind     {kinds}: {', '.join(names)}{more}"
    if sentence := stats.column_sentence():
        yield f"columns  {sentence.removeprefix('columns ')}"
    if found.read < len(found.parts):
        yield f"stopped  after {LIMIT_S:.0f} s, {found.read:,} of {len(found.parts):,} files listed: the counts are of these"
    yield f"items    {stats.sentence()}"
    yield f"clips    {_clips(clips)}"
    if tags := Counter(tag for clip in clips for tag in clip.tags):
        shown = ", ".join(f"{tag} {n:,}" for tag, n in tags.most_common(SHOWN_TAGS))
        yield f"tags     {len(tags):,}: {shown}{' ...' if len(tags) > SHOWN_TAGS else ''}"
    key_counts = Counter(clip.key for clip in clips)
    if doubled := [key for key, n in key_counts.items() if n > 1]:
        yield f"keys     {len(doubled):,} are of several clips, such as {doubled[0]!r}: `plan` refuses them"
    first = clips[:SHOWN_CLIPS]
    present = sum(clip.offset >= 0 or storage.exists(clip.uri) for clip in first if not clip.fault)
    yield f"audio    of the first {len(first)} clips {present} have their file"
    yield ""
    yield from _table(first)


def _clips(clips: list[Clip]) -> str:
    counts = {
        "with tags": sum(bool(clip.tags) for clip in clips),
        "with captions": sum(bool(clip.captions) for clip in clips),
        "cut out of longer files": sum(bool(clip.cut_start_s or clip.cut_end_s) for clip in clips),
    }
    folds = Counter(clip.fold for clip in clips if clip.fold)
    line = f"{len(clips):,}: " + ", ".join(f"{n:,} {what}" for what, n in counts.items())
    return line + (f"; folds: {', '.join(f'{fold} {n:,}' for fold, n in sorted(folds.items()))}" if folds else "")


def _table(clips: list[Clip]) -> Iterator[str]:
    """Yield a line for each clip, its cells under a head."""
    rows = [("key", "audio", "tags", "captions"), *map(_row, clips)]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()


def _row(clip: Clip) -> tuple[str, str, str, str]:
    location = clip.uri.rpartition("/")[2]
    if clip.offset >= 0:
        location += f" at {clip.offset}" if clip.size >= 0 else f" row {clip.offset}"
    if clip.cut_start_s or clip.cut_end_s:
        location += f" {clip.cut_start_s:g}-{clip.cut_end_s or 0:g} s"
    captions = " || ".join(clip.captions) or clip.fault
    return clip.key, _short(location), _short("|".join(clip.tags)), _short(captions)


def _short(text: str) -> str:
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 3] + "..."
