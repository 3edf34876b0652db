"""Datasets as their authors publish them, where that is no table that `pipeline.sources` reads as it is: -> clips.

Every function takes the folder of a dataset and the listing inside it. Audio that is not there is found out when it is
read; folders are listed once, for the names that audio may have.
"""

import csv
import dataclasses
from collections.abc import Iterator

from pipeline import audioset, sources, storage
from pipeline.clip import Clip, key_of, stem, suffix_of

UNLABELLED = "_background_noise_"


def table(folder: str, file: str) -> Iterator[Clip]:
    """Yield the clips of any listing that `pipeline.sources` reads."""
    yield from sources.list_clips(storage.join(folder, file), flag="--task-dir")


def urbansound8k(folder: str, file: str) -> Iterator[Clip]:
    """Yield the clips of metadata/UrbanSound8K.csv, whose audio lies in audio/fold<n>/."""
    for clip in table(folder, file):
        yield dataclasses.replace(clip, uri=storage.join(folder, "audio", f"fold{clip.fold}", clip.source_id))


def fsd50k(folder: str, file: str) -> Iterator[Clip]:
    """Yield the clips of FSD50K.ground_truth/dev.csv or eval.csv, whose audio is named by Freesound id."""
    part = file.rpartition("/")[2].removesuffix(".csv")
    for clip in table(folder, file):
        yield dataclasses.replace(clip, uri=storage.join(folder, f"FSD50K.{part}_audio", f"{clip.source_id}.wav"))


def vggsound(folder: str, file: str) -> Iterator[Clip]:
    """Yield the clips of vggsound.csv (`ytid,start,label,split`), or of a test table (`<ytid>_<start>.mp4,label`)."""
    places = _names(folder, ("audio", "video", ""))
    with storage.open_text(storage.join(folder, file)) as text:
        for line, fields in enumerate(csv.reader(text), start=1):
            if len(fields) == 4:
                ytid, start, label, split = fields
            elif len(fields) == 2 and len(stem(fields[0])) == len("<11 of id>..") + 6:
                ytid, start, label, split = fields[0][:11], stem(fields[0])[12:], fields[1], "test"
            elif fields:
                raise ValueError(f"line {line} of {file}: want ytid,start,label,split or <ytid>_<start>.mp4,label")
            else:
                continue
            name = f"{ytid}_{int(start):06d}"
            yield Clip(
                key=audioset.key(ytid, int(start), int(start) + 10),
                uri=places.get(name, storage.join(folder, "audio", f"{name}.wav")),
                source_id=name,
                origin=f"youtube:{ytid}",
                start_s=float(start),
                end_s=float(start) + 10,
                tags=(label.replace("_", ","),),  # `bird chirping_ tweeting` in tables that may hold no comma
                fold=split,
            )


def clotho(folder: str, file: str) -> Iterator[Clip]:
    """Yield the clips of clotho_captions_<split>.csv; Freesound ids come from clotho_metadata_<split>.csv beside it."""
    about = storage.join(folder, file.replace("captions", "metadata"))
    ids: dict[str, str] = {}
    if storage.exists(about):
        with storage.open_text(about, errors="replace") as text:  # Latin-1 since v2; ids and names of audio survive
            ids = {row["file_name"]: row["sound_id"] or "" for row in csv.DictReader(text)}
    for clip in table(folder, file):
        number = ids.get(clip.source_id, "")  # or `Not found`
        yield dataclasses.replace(clip, origin=f"freesound:{number}") if number.isdigit() else clip


def gtzan(folder: str, file: str) -> Iterator[Clip]:
    """Yield the clips of genres/<genre>/<genre>.<number>.wav; the fault-filtered lists of Sturm make the splits."""
    lists = {"train": "train_filtered.txt", "validation": "valid_filtered.txt", "test": "test_filtered.txt"}
    split = {stem(name): part for part, listed in lists.items() for name in _lines(folder, listed)}
    root = storage.join(folder, file)
    there = _audio(root)
    yield from _in_folders(root, there, split or dict.fromkeys(there, ""))


def speech_commands(folder: str, file: str) -> Iterator[Clip]:
    """Yield the clips of <word>/<speaker>_nohash_<n>.wav; validation_list.txt and testing_list.txt make the splits."""
    there = _audio(folder)
    split = dict.fromkeys(there, "train")
    for listed, part in (("validation_list.txt", "validation"), (file, "test")):
        split |= {stem(name): part for name in _lines(folder, listed)}
    yield from _in_folders(folder, there, split)


def _in_folders(root: str, there: dict[str, str], split: dict[str, str]) -> Iterator[Clip]:
    """Yield the clips of {`<label>/<name without suffix>`: fold}; those that are not there are taken to be .wav."""
    for name, fold in sorted(split.items()):
        uri = there.get(name, storage.join(root, f"{name}.wav"))
        own = uri.removeprefix(f"{root}/")
        yield Clip(key=key_of(own), uri=uri, source_id=own, tags=(name.partition("/")[0],), fold=fold)


def _audio(root: str) -> dict[str, str]:
    """Return {`<folder>/<name without suffix>`: URI} of what lies one folder deep; lists may name another suffix."""
    folders = [n for n in storage.list_names(root) if n != UNLABELLED and storage.is_folder(storage.join(root, n))]
    files = ((part, name) for part in folders for name in storage.list_names(storage.join(root, part)))
    return {f"{part}/{stem(name)}": storage.join(root, part, name) for part, name in files if suffix_of(name)}


def _names(folder: str, places: tuple[str, ...]) -> dict[str, str]:
    """Return {name without suffix: URI} of the first place that has audio."""
    for place in places:
        where = storage.join(folder, place) if place else folder
        if found := {stem(name): storage.join(where, name) for name in storage.names(where) if suffix_of(name)}:
            return found
    return {}


def _lines(folder: str, name: str) -> list[str]:
    uri = storage.join(folder, name)
    return storage.read_text(uri).split() if storage.exists(uri) else []
