"""Tables of captioned clips as their authors publish them: AudioCaps' CSVs, Clotho's columns, MACS' YAML."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pipeline import audioset, storage
from pipeline.audio_folder import AudioFolder
from pipeline.clip import Clip, key_of

FILE_COLUMNS = ("file", "filename", "file_name", "audio", "path", "slice_file_name", "fname")
AUDIOCAPS_S = 10.0  # length of a clip
NUMBERED = re.compile(r"caption_\d+")  # Clotho's columns


def is_audiocaps(header: Sequence[str]) -> bool:
    """Tell AudioCaps' header: a clip is told by YouTube id and start, and no column names a file."""
    return {"youtube_id", "start_time", "caption"} <= set(header) and not set(FILE_COLUMNS) & set(header)


def list_audiocaps(uri: str, rows: Iterable[Mapping[str, str]]) -> Iterator[Clip]:
    """Yield the clips of an AudioCaps CSV, with all captions of a clip and, from segments tables beside it, its labels."""
    captions: dict[tuple[str, float], list[str]] = defaultdict(list)
    for row in rows:
        texts = captions[row["youtube_id"], float(row["start_time"])]
        texts.extend(filter(None, [(row["caption"] or "").strip()]))
    folder = uri.rpartition("/")[0]
    files, labels, names = AudioFolder(folder), *_labels(folder, {ytid for ytid, _ in captions})
    for (ytid, start_s), texts in captions.items():
        segment = audioset.Segment(ytid, start_s, start_s + AUDIOCAPS_S, labels.get(ytid, ()))
        yield Clip(
            key=audioset.key(*segment[:3]),
            uri=files.find(segment),
            source_id=ytid,
            origin=f"youtube:{ytid}",
            start_s=segment.start_s,
            end_s=segment.end_s,
            tags=tuple(names[mid] for mid in segment.mids if mid in names),
            mids=segment.mids,
            captions=tuple(texts),
        )


def numbered(row: Mapping[str, str]) -> list[str]:
    """Return the captions of a row that has them in columns caption_1, caption_2, ..."""
    return [
        text.strip() for column, text in row.items() if column and NUMBERED.fullmatch(column) and (text or "").strip()
    ]


def list_macs(uri: str) -> Iterator[Clip]:
    """Yield the clips of MACS.yaml; its tags are those that at least half of a clip's annotators gave."""
    import yaml  # here: nothing else reads YAML

    files = AudioFolder(uri.rpartition("/")[0])
    try:
        listed = yaml.load(storage.read_text(uri), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 both are safe
        rows = listed["files"]
    except (yaml.YAMLError, TypeError, KeyError) as error:
        raise ValueError(f"no YAML with a list of files, as MACS has it: {error}") from error
    for row in rows:
        notes = row["annotations"]
        votes = Counter(tag.replace("_", " ") for note in notes for tag in note.get("tags") or ())
        yield Clip(
            key=key_of(row["filename"]),
            uri=files.place(row["filename"]),
            source_id=row["filename"],
            tags=tuple(tag for tag, count in votes.items() if 2 * count >= len(notes)),
            captions=tuple(note["sentence"].strip() for note in notes if (note.get("sentence") or "").strip()),
        )


def _labels(folder: str, wanted: set[str]) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Return AudioSet's mids by YouTube id, and the names of mids, where its segments and labels lie in the folder."""
    labels_uri = storage.join(folder, audioset.LABELS_FILE)
    tables = [name for name in storage.list_names(folder) if "_segments.csv" in name]
    if not tables or not storage.exists(labels_uri):
        return {}, {}
    found: dict[str, tuple[str, ...]] = {}
    for name in tables:
        with storage.open_text(storage.join(folder, name)) as text:
            found |= {each.ytid: each.mids for each in audioset.read_segments(text) if each.ytid in wanted}
    return found, audioset.read_labels(storage.read(labels_uri).decode())
