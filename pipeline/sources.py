"""What users have -> clips: AudioSet segment CSVs beside an audio folder, or any table with a file column.

A source is one CSV, or a folder with a `metadata.csv` or just audio files. AudioSet layout: `class_labels_indices.csv`
and the folder `audio/` lie beside the CSV; an optional `<stem>_captions.csv` in AudioCaps layout
(`audiocap_id,youtube_id,start_time,caption`) adds human captions. Any other CSV needs a header with one of the column
names in `COLUMNS`; files are relative to the CSV's folder or to `audio/` in it.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline import audio, audioset, storage
from pipeline.cli import InputError

AUDIO_SUFFIXES = (".flac", ".wav", ".ogg", ".mp3", ".m4a", ".opus")
COLUMNS = {  # role -> names looked for, first match wins
    "file": ("file", "filename", "file_name", "audio", "path", "slice_file_name"),
    "labels": ("labels", "label", "category", "class"),
    "captions": ("captions", "caption", "text"),
    "fold": ("fold", "split"),
}
FOLDER_TABLE = "metadata.csv"  # read when the source is a folder; without it, every audio file there is a clip
MAX_KEY = 90  # a longer member name does not fit a plain USTAR header
LABEL_SEPARATOR = "|"  # display names contain commas and semicolons are taken by other tools
CAPTION_SEPARATOR = "||"


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One listed clip. The audio file may be missing or broken: that is found out when it is read."""

    key: str  # unique, no dots
    uri: str  # of the audio file
    source_id: str  # the id as the source wrote it
    start_s: float = 0.0  # position in the original recording, as listed; the file holds just this stretch
    end_s: float = 0.0
    tags: tuple[str, ...] = ()  # label display names
    mids: tuple[str, ...] = ()  # AudioSet machine ids of the tags, where there are any
    captions: tuple[str, ...] = ()  # human captions
    fold: str = ""


def read_clips(source: str, folds: Iterable[str] = (), flag: str = "--source") -> list[Clip]:
    """List the clips of a source.

    Args:
        source: path or URI of a CSV (`.csv` or `.csv.gz`), or of a folder.
        folds: keep only rows with one of these values in the fold column; empty keeps all.
        flag: the command-line flag to name in an error.

    Raises:
        InputError: when the file is absent, has no usable column, has a wrong line, lists a key twice, or no row is left.
    """
    if not source:
        raise InputError(flag, source, "give the CSV that lists your clips")
    try:
        clips = [clip for clip in _list(storage.resolve(source)) if not folds or clip.fold in folds]
    except FileNotFoundError:
        raise InputError(flag, source, "no such file; give the CSV or folder of your clips") from None
    except KeyError as error:
        raise InputError(flag, source, f"a table has no column {error}") from None
    except (ValueError, OSError, csv.Error) as error:
        raise InputError(flag, source, f"cannot be read: {error}") from None
    if not clips:
        raise InputError(flag, source, f"lists no clip{f' in folds {list(folds)}' if folds else ''}")
    _check_unique(clips, flag, source)
    return clips


def read_samples(uri: str, sample_rate_hz: int = audio.SAMPLE_RATE_HZ) -> np.ndarray:
    """Read and decode the audio file of a clip; int16 (T,). Raises AudioError for whatever is wrong with it."""
    try:
        data = storage.read(uri)
    except FileNotFoundError as error:
        raise audio.AudioError("missing", str(error)) from error
    except OSError as error:
        raise audio.AudioError("unreadable", str(error)) from error
    return audio.decode(data, sample_rate_hz)


def tag_vocabulary(clips: Iterable[Clip]) -> list[str]:
    """Return the sorted distinct tags."""
    return sorted({tag for clip in clips for tag in clip.tags})


def _list(uri: str) -> Iterator[Clip]:
    if storage.is_folder(uri):
        table = storage.join(uri, FOLDER_TABLE)
        yield from _list(table) if storage.exists(table) else _folder_clips(uri)
        return
    text = storage.read_text(uri)
    yield from _segment_clips(uri, text) if audioset.is_segments(text) else _table_clips(uri, text)


def _folder_clips(uri: str) -> Iterator[Clip]:
    for name in storage.list_names(uri):
        if name.endswith(AUDIO_SUFFIXES):
            yield Clip(key=_key(name), uri=storage.join(uri, name), source_id=name)


def _key(file: str) -> str:
    """Make a key of a file's relative path: `audio/dog/1.wav` gives `dog_1`."""
    path = file.removeprefix("audio/")
    return audioset.slug(path.rpartition(".")[0] or path)


def _segment_clips(uri: str, text: str) -> Iterator[Clip]:
    folder, _, name = uri.rpartition("/")
    labels_uri = storage.join(folder, audioset.LABELS_FILE)
    if not storage.exists(labels_uri):
        raise ValueError(f"its mids need {audioset.LABELS_FILE} beside it; copy the official file there")
    names = audioset.read_labels(storage.read(labels_uri).decode())
    captions = _captions(storage.join(folder, f"{name.split('.')[0]}_captions.csv"))
    files = _AudioFolder(folder)
    for segment in audioset.read_segments(text):
        unknown = [mid for mid in segment.mids if mid not in names]
        if unknown:
            raise ValueError(f"clip {segment.ytid} has mids absent from {audioset.LABELS_FILE}: {unknown}")
        yield Clip(
            key=audioset.key(segment.ytid, segment.start_s, segment.end_s),
            uri=files.find(f"Y{segment.ytid}", segment.ytid),
            source_id=segment.ytid,
            start_s=segment.start_s,
            end_s=segment.end_s,
            tags=tuple(names[mid] for mid in segment.mids),
            mids=segment.mids,
            captions=tuple(captions[segment.ytid, segment.start_s]),
        )


def _captions(uri: str) -> dict[tuple[str, float], list[str]]:
    found: dict[tuple[str, float], list[str]] = defaultdict(list)
    if storage.exists(uri):
        for row in csv.DictReader(io.StringIO(storage.read(uri).decode())):
            found[row["youtube_id"], float(row["start_time"])].append(row["caption"])
    return found


def _table_clips(uri: str, text: str) -> Iterator[Clip]:
    folder = uri.rpartition("/")[0]
    reader = csv.DictReader(io.StringIO(text))
    header = list(reader.fieldnames or [])
    columns = {role: next((name for name in names if name in header), None) for role, names in COLUMNS.items()}
    if columns["file"] is None:
        raise ValueError(f"no file column: header is {header}, want one of {list(COLUMNS['file'])}")
    files = _AudioFolder(folder)
    for row in reader:
        cells = {role: (row[name] or "") if name else "" for role, name in columns.items()}
        yield Clip(
            key=_key(cells["file"]),
            uri=files.place(cells["file"]),
            source_id=cells["file"],
            tags=tuple(_parts(cells["labels"].replace("_", " "), LABEL_SEPARATOR)),
            captions=tuple(_parts(cells["captions"], CAPTION_SEPARATOR)),
            fold=cells["fold"],
        )


def _parts(cell: str, separator: str) -> list[str]:
    return [part.strip() for part in cell.split(separator) if part.strip()]


class _AudioFolder:
    """Names inside a source's folder and its `audio/`, listed once: asking for each of millions of files is slow."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        beside = storage.join(folder.rpartition("/")[0], "audio")  # ESC-50's own layout: meta/esc50.csv and audio/
        self.audio = storage.join(folder, "audio")
        self.names = set(storage.list_names(self.audio))
        if not self.names and folder.endswith("/meta"):
            self.audio, self.names = beside, set(storage.list_names(beside))

    def find(self, *stems: str) -> str:
        """Return the file of a clip in one of the usual namings (`Y<id>.flac`, `<id>.wav`, ...)."""
        names = [f"{stem}{suffix}" for stem in stems for suffix in AUDIO_SUFFIXES]
        return storage.join(self.audio, next((name for name in names if name in self.names), names[0]))

    def place(self, file: str) -> str:
        """Return the place of a file named in a table: as written, relative to the table, or in `audio/`."""
        if "://" in file or file.startswith("/"):
            return file
        return storage.join(self.audio if file.partition("/")[0] in self.names else self.folder, file)


def _check_unique(clips: list[Clip], flag: str, source: str) -> None:
    seen: dict[str, Clip] = {}
    for clip in clips:
        if not 0 < len(clip.key) <= MAX_KEY:
            remedy = (
                f"{clip.source_id!r} gives a key of {len(clip.key)} characters; rename it, 1 to {MAX_KEY} are possible"
            )
            raise InputError(flag, source, remedy)
        other = seen.setdefault(clip.key, clip)
        if other is not clip:
            raise InputError(
                flag, source, f"{other.source_id!r} and {clip.source_id!r} give the same key {clip.key!r}; rename one"
            )
