"""A source -> its clips, in a fixed order and without holding them. Every item that is read is counted."""

import csv
import hashlib
import logging
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import NamedTuple

import pyarrow as pa

from pipeline import storage
from pipeline.errors import InputError
from pipeline.sources import audioset, columns, event_lists, formats, parts, strong_labels, youtube
from pipeline.sources.audio_folder import AudioFolder
from pipeline.sources.clip import MAX_KEY, Clip
from pipeline.sources.listing_stats import ListingStats
from pipeline.sources.tables import Options
from pipeline.storage.read_ahead import read_ahead

log = logging.getLogger(__name__)
SOURCE_HINT = "give the CSV, folder, tars or Parquet files of your clips"
LISTERS = 16  # packed files listed at a time, as listing from object storage mostly waits


def list_clips(
    source: str,
    folds: Iterable[str] = (),
    flag: str = "--source",
    column_names: str = "",
    stats: ListingStats | None = None,
    holds_all: bool = False,
) -> Iterator[Clip]:
    """Yield the clips of a source in a fixed order, without holding them.

    Args:
        source: path or URI, see pipeline/sources.
        folds: keep only rows with one of these values in the fold column; empty keeps all.
        flag: the command-line flag to name in an error.
        column_names: `file=path,labels=tags`, where a table has other than the usual names.
        stats: filled while clips are listed; balanced at the end.
        holds_all: for a source that gave equal keys: rows of one clip that lie apart in a table become one clip, and keys
            of packed clips begin with the name of their file.

    Raises:
        InputError: when the source is absent, has no usable column or a wrong line, or gives a key that cannot be stored.
    """
    if not source:
        raise InputError(flag, source, SOURCE_HINT)
    options = Options(columns=columns.parse(column_names), holds_all=holds_all)
    total = ListingStats() if stats is None else stats
    with readable(source, flag):
        listed = read_ahead(
            partial(formats.list_part, options=options), parts.find_parts(storage.resolve(source)), LISTERS
        )
        for part_stats, clips in listed:
            for clip in formats.kept(clips, folds, part_stats):
                if not clip.key:
                    raise InputError(flag, source, f"{clip.source_id!r} gives an empty key; rename it")
                assert len(clip.key.encode()) <= MAX_KEY, clip.key
                yield clip
            total.add(part_stats)
    assert total.balanced, total


class Listing(NamedTuple):
    """All clips of a source."""

    clips: list[Clip]
    stats: ListingStats


def read_clips(source: str, folds: Iterable[str] = (), flag: str = "--source", column_names: str = "") -> list[Clip]:
    """Return the clips of a source, as `read_listing` does."""
    return read_listing(source, folds, flag, column_names).clips


def read_listing(source: str, folds: Iterable[str] = (), flag: str = "--source", column_names: str = "") -> Listing:
    """Return the clips of a source, at least one, with keys that differ; logs the counts.

    Raises:
        InputError: as `list_clips` does, and for two clips that would share a key.
    """
    for holds_all in (False, True):
        stats = ListingStats()
        clips = list(list_clips(source, folds, flag, column_names, stats, holds_all))
        if not clips:
            raise InputError(flag, source, no_clip(folds, stats))
        seen: dict[str, Clip] = {}
        doubled = next((clip for clip in clips if seen.setdefault(clip.key, clip) is not clip), None)
        if doubled is None:
            log_listing(source, stats)
            return Listing(clips, stats)
    assert doubled is not None
    first, second = (describe_location(clip.source_id, clip.uri) for clip in (seen[doubled.key], doubled))
    raise InputError(flag, source, same_key(first, second, doubled.key))


def stamp(source: str, flag: str = "--source", events: bool = False) -> str:
    """Return a hash that changes with the files that list a source, and with the files that tables use beside them.

    The strong labels beside a table count with `events` alone.

    On disk it also changes when files are added to `audio/` or removed. Object stores would have to list all files for
    that; there, `pipeline retry --reason missing` finds the clips whose audio came after the plan.

    Raises:
        InputError: as `list_clips` does for an absent source.
    """
    with readable(source, flag):
        found = parts.find_parts(storage.resolve(source))
        uris = [part.uri for part in found]
        folders = [part.uri for part in found if part.kind in formats.FOLDERS]
        files = [uri for uri in uris if uri not in folders]
        lists = [uri for part in found if part.kind == "lists" for uri in event_lists.list_uris(part.uri)]
        marks: list[object] = [name for folder in folders for name in storage.list_names(folder)]
        if files and found[0].kind not in formats.PACKED:
            files += _read_beside(files[0], events)
        marks += storage.stamps([*files, *lists])
        return hashlib.sha256(repr((uris, marks)).encode()).hexdigest()


def no_clip(folds: Iterable[str], stats: ListingStats | None = None) -> str:
    """Return the message on a source without clips."""
    found = f"; {stats.sentence()}" if stats and stats.read.total() else ""
    return f"lists no clip{f' in folds {list(folds)}' if folds else ''}{found}"


def same_key(one: str, other: str, key: str) -> str:
    """Return the message on two clips that would share a name in a shard."""
    return f"{one} and {other} give the same key {key!r}; rename or drop one"


def tag_vocabulary(clips: Iterable[Clip]) -> list[str]:
    """Return the sorted distinct tags."""
    return sorted({tag for clip in clips for tag in clip.tags})


def log_listing(source: str, stats: ListingStats) -> None:
    """Log the counts and the columns of a source, once in a process."""
    _log_once(source, "; ".join(filter(None, (stats.sentence(), stats.column_sentence()))))


@contextmanager
def readable(source: str, flag: str) -> Iterator[None]:
    """Turn the errors of reading a source into an InputError of one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(flag, source, f"no such file ({error}); give the CSV or folder of your clips") from None
    except KeyError as error:
        raise InputError(flag, source, f"a table has no column {error}") from None
    except (ValueError, OSError, EOFError, zlib.error, csv.Error, pa.ArrowException) as error:
        raise InputError(flag, source, f"cannot be read: {error}") from None


def _read_beside(uri: str, events: bool) -> list[str]:
    """Return the files and folders that the listing of a table uses beside it, present or not."""
    folder, _, name = uri.rpartition("/")
    names = (audioset.LABELS_FILE, name.split(".")[0] + youtube.CAPTIONS_OF_SEGMENTS)
    strong = strong_labels.beside(uri) if events else []
    return [*(storage.join(folder, file) for file in names), *strong, *AudioFolder.candidates(folder, name)]


def describe_location(source_id: str, uri: str) -> str:
    """Return a clip's id and the file that holds its audio, for a message."""
    return repr(uri) if uri.endswith(source_id) else f"{source_id!r} in {uri}"


@lru_cache(maxsize=256)
def _log_once(source: str, sentence: str) -> None:
    log.info("%s: %s", source, sentence)
