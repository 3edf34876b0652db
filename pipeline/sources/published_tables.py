"""Published tables that differ from other tables: MACS, Clotho, UrbanSound8K, FSD50K, WavCaps."""

import csv
import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pipeline import storage
from pipeline.sources.audio_folder import AudioFolder
from pipeline.sources.clip import Clip, find_recording_id, key_of, stem
from pipeline.sources.listing_stats import ListingStats
from pipeline.sources.rows import ListingError
from pipeline.sources.tables import CAPTION_SEPARATOR, Row, text_of, texts

FSD50K_FOLDER = "FSD50K.ground_truth"
WAVCAPS_ID = re.compile(r"Y([\w-]{11})(\.\w+)?")  # of its AudioSet part


def find_locator(uri: str, header: Iterable[str]) -> Callable[[Mapping[str, Any]], str] | None:
    """Return a function from a row to the URI of its audio, where a published layout has such a rule; None elsewhere."""
    folder, _, name = uri.rpartition("/")
    above = folder.rpartition("/")[0]
    if "slice_file_name" in header and folder.endswith("/metadata"):
        return lambda row: storage.join(above, "audio", f"fold{text_of(row['fold'])}", text_of(row["slice_file_name"]))
    if "fname" in header and folder.endswith(f"/{FSD50K_FOLDER}"):
        part = name.partition(".")[0]
        return lambda row: storage.join(above, f"FSD50K.{part}_audio", f"{text_of(row['fname'])}.wav")
    return None


def with_freesound_ids(uri: str, clips: Iterable[Clip]) -> Iterator[Clip]:
    """Yield Clotho's clips with the Freesound ids of clotho_metadata_<split>.csv beside the captions, if it is there."""
    folder, _, name = uri.rpartition("/")
    beside = storage.join(folder, name.replace("captions", "metadata"))
    ids: dict[str, str] = {}
    if beside != uri and storage.exists(beside):
        with storage.open_text(beside, errors="replace") as text:  # Latin-1 since v2; ids and names of audio survive
            ids = {row.get("file_name") or "": row.get("sound_id") or "" for row in csv.DictReader(text)}
    for clip in clips:
        freesound = ids.get(clip.source_id, "")  # or `Not found`
        yield dataclasses.replace(clip, recording_id=f"freesound:{freesound}") if freesound.isdigit() else clip


def is_wavcaps(fields: Mapping[str, Any]) -> bool:
    """Return whether a JSON row is WavCaps': its file is named by the clip's id."""
    return {"id", "caption", "duration"} <= set(fields) and not {"audio", "file", "path"} & set(fields)


def list_wavcaps(uri: str, rows: Iterable[Row], stats: ListingStats, captions: str = "caption") -> Iterator[Clip]:
    """Yield the clips of one of WavCaps' JSON files; the audio lies beside it or in its `<part>_flac` folder.

    `captions` names the field with the texts: Freesound's and BBC's parts also have the raw `description`.
    """
    folder, _, table = uri.rpartition("/")
    files = AudioFolder(folder, table, stats)
    stats.columns |= {"file": "id", "captions": captions, "source": "href"}
    for line, fields in rows:
        stats.read["rows"] += 1
        name = text_of(fields["id"])
        if not name:
            raise ListingError(uri, line, "has an empty id")
        youtube = WAVCAPS_ID.fullmatch(name)
        links = " ".join(text_of(fields.get(column)) for column in ("href", "download_link"))
        yield Clip(
            key=key_of(name),
            uri=files.locate(stem(name)),
            source_id=name,
            recording_id=f"youtube:{youtube[1]}" if youtube else find_recording_id(links),
            captions=tuple(texts(fields.get(captions), CAPTION_SEPARATOR)),
        )


def list_macs(uri: str, stats: ListingStats) -> Iterator[Clip]:
    """Yield the clips of MACS.yaml; its tags are those that at least half of a clip's annotators gave."""
    import yaml  # here: nothing else reads YAML

    files = AudioFolder(uri.rpartition("/")[0], "", stats)
    stats.columns |= {"file": "filename", "captions": "sentence", "labels": "tags"}
    try:
        listed = yaml.load(storage.read_text(uri), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 both are safe
        rows = [(row["filename"], row["annotations"]) for row in listed["files"]]
    except (yaml.YAMLError, TypeError, KeyError) as error:
        raise ValueError(f"no YAML with a list of files, as MACS has it: {error}") from error
    for name, notes in rows:
        stats.read["rows"] += 1
        votes = Counter(tag.replace("_", " ") for note in notes for tag in note.get("tags") or ())
        yield Clip(
            key=key_of(name),
            uri=files.locate(name),
            source_id=name,
            tags=tuple(tag for tag, count in votes.items() if 2 * count >= len(notes)),
            captions=tuple(note["sentence"].strip() for note in notes if (note.get("sentence") or "").strip()),
        )
