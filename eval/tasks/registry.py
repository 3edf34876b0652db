"""Downstream datasets as users have them: their listings, splits and labels. One short entry each."""

import csv
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from eval.tasks import own_task
from eval.tasks.task import Task as Task
from pipeline import sources, storage
from pipeline.errors import InputError
from pipeline.sources import audioset, official_layouts
from pipeline.sources.clip import Clip, disambiguated_key
from pipeline.sources.official_layouts import Listing

LISTINGS = {"synth": (Listing(("evaluation_segments.csv",)),)} | official_layouts.LISTINGS
OWN_TABLE = "metadata.csv"  # what a dataset may bring in place of its official listings, such as a subset of it


TASKS = {
    task.name: task
    for task in (
        Task(
            name="synth",
            labels="one",  # those with one sound are classified, all are tagged
            captioned=True,
            fold_rule="the evaluation split of the procedural corpus",
            label_text=audioset.label_text,
        ),
        Task(
            name="esc50",
            folds=("1", "2", "3", "4", "5"),
            folders=("esc-50", "esc-50-master"),
            fold_rule="ESC-50 official folds",
        ),
        Task(
            name="urbansound8k",
            folds=tuple(str(fold) for fold in range(1, 11)),
            fold_rule="UrbanSound8K official folds",
        ),
        Task(
            name="fsd50k",
            labels="many",
            train=("train",),
            validation=("val",),
            test=("test",),
            vocabulary="FSD50K.ground_truth/vocabulary.csv",
            fold_rule="FSD50K eval; trained on dev's train, chosen on dev's val",
        ),
        Task(
            name="vggsound",
            train=("train",),
            test=("test",),
            fold_rule="VGGSound test",
        ),
        Task(
            name="audioset",
            labels="many",
            train=("train",),
            test=("test",),
            vocabulary=audioset.LABELS_FILE,
            fold_rule="AudioSet eval; trained on the balanced training segments",
        ),
        Task(
            name="audioset-strong",
            labels="many",
            train=("train",),
            test=("test",),
            fold_rule="AudioSet's strongly labelled evaluation clips",
            label_text=audioset.label_text,
        ),
        Task(
            name="desed",
            labels="many",
            train=("train",),
            test=("public",),
            fold_rule="DESED's public evaluation set",
        ),
        Task(
            name="urban-sed",
            labels="many",
            train=("train",),
            validation=("validate",),
            test=("test",),
            folders=("urban-sed_v2.0.0",),
            fold_rule="URBAN-SED test",
        ),
        Task(
            name="maestro-real",
            labels="many",
            fold_rule="MAESTRO Real's development set, labels of at least half of the annotators",
        ),
        Task(
            name="gtzan",
            train=("train",),
            validation=("validation",),
            test=("test",),
            fold_rule="GTZAN, the fault-filtered test list where it is there, else all 1,000 clips",
            label_text=lambda label: "hip hop music" if label == "hiphop" else f"{label} music",
        ),
        Task(
            name="speech-commands",
            train=("train",),
            validation=("validation",),
            test=("test",),
            folders=("speech_commands_v0.02", "speech_commands", "speechcommands"),
            fold_rule="Speech Commands testing list",
            label_text=lambda label: f"a person saying {label}",
        ),
        Task(
            name="audiocaps",
            labels="none",
            captioned=True,
            train=("train",),
            validation=("val",),
            test=("test",),
            fold_rule="AudioCaps test",
        ),
        Task(
            name="clotho",
            labels="none",
            captioned=True,
            train=("development",),
            validation=("validation",),
            test=("evaluation",),
            fold_rule="Clotho evaluation",
        ),
    )
}


def read(
    name: str, folder: str, folds: tuple[str, ...], training: bool = False, columns: str = "", classes: str = ""
) -> tuple[Task, list[Clip]]:
    """Return a task and its clips.

    Args:
        name: one of `TASKS`, or any other name for a task of one's own.
        folder: of the dataset, official or with a table of its own (`metadata.csv`); of one's own task, any source.
        folds: read only these; empty reads what is evaluated: the official test split, or all folds, or all there is.
        training: read the official training and validation splits too.
        columns: `file=path,labels=tags`, where a table has other than the usual names.
        classes: of one's own task, a file with a class a line; empty takes the labels of its clips.

    Raises:
        InputError: naming what is wrong with --task, --task-dir, --classes or --folds.
    """
    if name not in TASKS:
        return own_task.read(name, folder, folds, training, columns, classes)
    if classes:
        raise InputError("--classes", classes, f"{name} has its own classes; leave it out, or name a task of your own")
    task = TASKS[name]
    files = " or ".join(file for listing in LISTINGS[name] for file in listing.files)
    if not folder:
        raise InputError("--task-dir", folder, f"give the folder that holds {files}")
    uri = storage.resolve(folder)
    found = _listings(task, uri)
    own = not found and storage.exists(storage.join(uri, OWN_TABLE))
    if not found and not own:
        raise InputError("--task-dir", folder, f"holds no {files} and no {OWN_TABLE}")
    wanted = {*(folds or task.test), *(task.train + task.validation if training else ())}
    stats = sources.ListingStats()
    with _readable(folder):
        if own:
            clips = sources.read_clips(storage.join(uri, OWN_TABLE), flag="--task-dir", column_names=columns)
        else:
            parts = [(listing, file) for listing, file in found if not wanted or listing.split in ("", *wanted)]
            listed = [(listing.split, clip) for listing, file in parts for clip in _list(uri, file, columns, stats)]
            clips = [replace(clip, fold=split) if split else clip for split, clip in listed]
            sources.log_listing(folder, stats)
    have = {clip.fold for clip in clips}
    if folds or have & wanted or (wanted and not own and have != {""}):  # never training clips for test clips
        clips = [clip for clip in clips if clip.fold in wanted]
    elif own and wanted:
        task = replace(task, fold_rule=f"all clips of {OWN_TABLE}")
    absent = tuple(fold for fold in folds if fold not in have)
    if absent or not clips:
        flag, value = ("--folds", absent) if absent else ("--task-dir", folder)
        raise InputError(flag, value, _no_clip(absent or wanted, have | {listing.split for listing, _ in found}))
    return task, _distinct(task, clips)


def classes(task: Task, folder: str, clips: Iterable[Clip]) -> list[str]:
    """Return the classes of a task: its official list in order where that lies in the folder, else the labels of clips.

    Raises:
        InputError: when that list cannot be read.
    """
    return list(task.classes) or list(_vocabulary(task, folder)) or sources.tag_vocabulary(clips)


def descriptions(task: Task, folder: str) -> dict[str, str]:
    """Return {class: description} where classes are AudioSet's and its ontology.json lies in the folder; {} elsewhere.

    Raises:
        InputError: when it cannot be read.
    """
    uri = storage.join(storage.resolve(folder), audioset.ONTOLOGY_FILE)
    mids = _vocabulary(task, folder)
    if not mids or not storage.exists(uri):
        return {}
    with _readable(folder):
        descriptions = {node["id"]: node["description"].strip() for node in json.loads(storage.read_text(uri))}
    return {name: descriptions[mid] for name, mid in mids.items() if descriptions.get(mid)}


def present(folder: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return {task: its folder} of the datasets in a folder, named as tasks or as published, or of the folder itself;
    and {task: what is wrong} of those that cannot be looked into.

    Raises:
        InputError: when the folder itself cannot be read.
    """
    uri = storage.resolve(folder)
    with _readable(folder):
        named = {name.lower(): storage.join(uri, name) for name in storage.list_names(uri)}
    named.setdefault(uri.rpartition("/")[2].lower(), uri)
    found: dict[str, str] = {}
    closed: dict[str, str] = {}
    for task in TASKS.values():
        places = [named[name] for name in (task.name, *task.folders) if name in named]
        try:
            if place := _place(task, places, uri):
                found[task.name] = place
        except OSError as error:
            closed[task.name] = f"--task-dir {folder!r}: cannot be read: {error}"
    return found, closed


def _list(uri: str, file: str, columns: str, stats: sources.ListingStats) -> Iterator[Clip]:
    """Yield the clips of one listing; lists of splits and folders of classes belong to the whole folder."""
    listing = storage.join(uri, file) if file.endswith((".csv", ".tsv")) else uri
    return sources.list_clips(listing, flag="--task-dir", column_names=columns, stats=stats)


def _place(task: Task, places: list[str], uri: str) -> str:
    """Return the folder that holds a task, official before one with a table of its own; '' where none does."""
    own = [place for place in places if storage.exists(storage.join(place, OWN_TABLE))]
    official = [place for place in places if _listings(task, place)]
    if any(listing.is_distinctive for listing, _ in _listings(task, uri)):
        official.append(uri)
    return next(iter(official or own), "")


def _listings(task: Task, uri: str) -> list[tuple[Listing, str]]:
    """Return the listings of a task that are there, each with its file."""
    listings = LISTINGS[task.name]
    there = ((each, [file for file in each.files if storage.exists(storage.join(uri, file))]) for each in listings)
    return [(listing, files[0]) for listing, files in there if files]


def _no_clip(asked: Iterable[str], have: set[str]) -> str:
    """Return the message for folds without a clip; '' is no fold."""
    lists = f" of {', '.join(sorted(asked))}" if asked else ""
    return f"lists no clip{lists}; folds: {', '.join(sorted(have - {''})) or 'none'}"


def _distinct(task: Task, clips: list[Clip]) -> list[Clip]:
    """Return the clips with keys that differ: Clotho gives a name to clips of two splits, of which the later keeps it."""
    seen: dict[str, Clip] = {}
    for clip in reversed(clips):
        other = seen.get(clip.key)
        same_recording = other and clip.recording_id and clip.recording_id == other.recording_id
        if other and task.test and clip.fold != other.fold and not same_recording:
            clip = replace(clip, key=disambiguated_key(f"{clip.fold}/{clip.source_id}"))
        if seen.setdefault(clip.key, clip) is not clip:
            message = sources.same_key(clip.source_id, seen[clip.key].source_id, clip.key)
            raise InputError("--task-dir", clip.uri, message)
    return list(reversed(seen.values()))


def _vocabulary(task: Task, folder: str) -> dict[str, str]:
    """Return {class: AudioSet's id} of a task's own list in its order: AudioSet's with a header, FSD50K's without."""
    uri = storage.join(storage.resolve(folder), task.vocabulary)
    if not task.vocabulary or not storage.exists(uri):
        return {}
    with _readable(folder):
        if task.vocabulary == audioset.LABELS_FILE:
            return {name: mid for mid, name in audioset.read_labels(storage.read_text(uri)).items()}
        rows = csv.reader(storage.read_text(uri).splitlines())
        return {name.replace("_", " "): mid for _, name, mid in rows}


@contextmanager
def _readable(folder: str) -> Iterator[None]:
    """Tell by InputError of what cannot be read."""
    try:
        yield
    except KeyError as error:
        raise InputError("--task-dir", folder, f"a file there has no {error}") from None
    except (ValueError, OSError, csv.Error) as error:
        raise InputError("--task-dir", folder, f"cannot be read: {error}") from None
