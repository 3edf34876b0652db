"""Downstream datasets as users have them: their listings, splits and labels. One short entry each."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from eval import layouts
from pipeline import audioset, sources, storage
from pipeline.cli import InputError
from pipeline.clip import Clip, told_apart

OWN_TABLE = "metadata.csv"  # what a dataset may bring in place of its official listings, such as a subset of it
ANYONES = ("train.csv", "val.csv", "test.csv")  # names that by themselves tell no dataset


class Listing(NamedTuple):
    """A file, or a folder, inside a dataset's folder that lists clips."""

    files: tuple[str, ...]  # the first that is there is read
    split: str = ""  # the fold of all its clips; '' where the listing tells it
    read: Callable[[str, str], Iterable[Clip]] = layouts.table


@dataclass(frozen=True, kw_only=True)
class Task:
    """A downstream dataset."""

    name: str
    listings: tuple[Listing, ...]
    fold_rule: str
    labels: Literal["one", "many", "none"] = "one"  # that a clip has
    captioned: bool = False
    folds: tuple[str, ...] = ()  # of an official cross-validation
    train: tuple[str, ...] = ()  # folds of the official splits
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()  # names that its folder is published under, in lower case
    vocabulary: str = ""  # file that lists its classes, with AudioSet's ids
    label_text: Callable[[str], str] = str.lower  # label -> the words put into a prompt


TASKS = {
    task.name: task
    for task in (
        Task(
            name="synth",
            listings=(Listing(("evaluation_segments.csv",)),),
            labels="one",  # those with one sound are classified, all are tagged
            captioned=True,
            fold_rule="the evaluation split of the procedural corpus",
            label_text=lambda label: label.split(",")[0].lower(),
        ),
        Task(
            name="esc50",
            listings=(Listing(("meta/esc50.csv",)),),
            folds=("1", "2", "3", "4", "5"),
            folders=("esc-50", "esc-50-master"),
            fold_rule="ESC-50 official folds",
        ),
        Task(
            name="urbansound8k",
            listings=(Listing(("metadata/UrbanSound8K.csv",), read=layouts.urbansound8k),),
            folds=tuple(str(fold) for fold in range(1, 11)),
            fold_rule="UrbanSound8K official folds",
        ),
        Task(
            name="fsd50k",
            listings=(
                Listing(("FSD50K.ground_truth/dev.csv",), read=layouts.fsd50k),
                Listing(("FSD50K.ground_truth/eval.csv",), "test", layouts.fsd50k),
            ),
            labels="many",
            train=("train",),
            validation=("val",),
            test=("test",),
            vocabulary="FSD50K.ground_truth/vocabulary.csv",
            fold_rule="FSD50K eval; trained on dev's train, chosen on dev's val",
        ),
        Task(
            name="vggsound",
            listings=(Listing(("vggsound.csv", "vggsound_test.csv"), read=layouts.vggsound),),
            train=("train",),
            test=("test",),
            fold_rule="VGGSound test",
        ),
        Task(
            name="audioset",
            listings=(
                Listing(("balanced_train_segments.csv",), "train"),
                Listing(("unbalanced_train_segments.csv",), "unbalanced"),  # two million: only when asked for
                Listing(("eval_segments.csv",), "test"),
            ),
            labels="many",
            train=("train",),
            test=("test",),
            vocabulary=audioset.LABELS_FILE,
            fold_rule="AudioSet eval; trained on the balanced training segments",
        ),
        Task(
            name="gtzan",
            listings=(Listing(("genres_original", "genres", "Data/genres_original"), read=layouts.gtzan),),
            train=("train",),
            validation=("validation",),
            test=("test",),
            fold_rule="GTZAN, the fault-filtered test list where it is there, else all 1,000 clips",
            label_text=lambda label: "hip hop music" if label == "hiphop" else f"{label} music",
        ),
        Task(
            name="speech-commands",
            listings=(Listing(("testing_list.txt",), read=layouts.speech_commands),),
            train=("train",),
            validation=("validation",),
            test=("test",),
            folders=("speech_commands_v0.02", "speech_commands", "speechcommands"),
            fold_rule="Speech Commands testing list",
            label_text=lambda label: f"a person saying {label}",
        ),
        Task(
            name="audiocaps",
            listings=(
                Listing(("train.csv",), "train"),
                Listing(("val.csv",), "val"),
                Listing(("test.csv",), "test"),
            ),
            labels="none",
            captioned=True,
            train=("train",),
            validation=("val",),
            test=("test",),
            fold_rule="AudioCaps test",
        ),
        Task(
            name="clotho",
            listings=(
                Listing(("clotho_captions_development.csv",), "development", layouts.clotho),
                Listing(("clotho_captions_validation.csv",), "validation", layouts.clotho),
                Listing(("clotho_captions_evaluation.csv",), "evaluation", layouts.clotho),
            ),
            labels="none",
            captioned=True,
            train=("development",),
            validation=("validation",),
            test=("evaluation",),
            fold_rule="Clotho evaluation",
        ),
    )
}


def read(name: str, folder: str, folds: tuple[str, ...], training: bool = False) -> tuple[Task, list[Clip]]:
    """Return a task and its clips.

    Args:
        name: one of `TASKS`.
        folder: of the dataset, official or with a table of its own (`metadata.csv`).
        folds: read only these; empty reads what is evaluated: the official test split, or all folds, or all there is.
        training: read the official training and validation splits too.

    Raises:
        InputError: naming what is wrong with --task, --task-dir or --folds.
    """
    if name not in TASKS:
        raise InputError("--task", name, f"choose one of {', '.join(TASKS)}")
    task = TASKS[name]
    files = " or ".join(file for listing in task.listings for file in listing.files)
    if not folder:
        raise InputError("--task-dir", folder, f"give the folder that holds {files}")
    uri = storage.resolve(folder)
    found = _listings(task, uri)
    own = not found and storage.exists(storage.join(uri, OWN_TABLE))
    if not found and not own:
        raise InputError("--task-dir", folder, f"holds no {files} and no {OWN_TABLE}")
    wanted = {*(folds or task.test), *(task.train + task.validation if training else ())}
    with _readable(folder):
        if own:
            clips = list(layouts.table(uri, OWN_TABLE))
        else:
            parts = [(listing, file) for listing, file in found if not wanted or listing.split in ("", *wanted)]
            listed = [(listing.split, clip) for listing, file in parts for clip in listing.read(uri, file)]
            clips = [replace(clip, fold=split) if split else clip for split, clip in listed]
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
    return list(_vocabulary(task, folder)) or sources.tag_vocabulary(clips)


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
        told = {node["id"]: node["description"].strip() for node in json.loads(storage.read_text(uri))}
    return {name: told[mid] for name, mid in mids.items() if told.get(mid)}


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


def _place(task: Task, places: list[str], uri: str) -> str:
    """Return the folder that holds a task, official before one with a table of its own; '' where none does."""
    own = [place for place in places if storage.exists(storage.join(place, OWN_TABLE))]
    official = [place for place in places if _listings(task, place)]
    if any(file not in ANYONES for _, file in _listings(task, uri)):
        official.append(uri)
    return next(iter(official or own), "")


def _listings(task: Task, uri: str) -> list[tuple[Listing, str]]:
    """Return the listings of a task that are there, each with its file."""
    there = ((each, [file for file in each.files if storage.exists(storage.join(uri, file))]) for each in task.listings)
    return [(listing, files[0]) for listing, files in there if files]


def _no_clip(asked: Iterable[str], have: set[str]) -> str:
    """Return what to say of folds without a clip; '' is no fold."""
    lists = f" of {', '.join(sorted(asked))}" if asked else ""
    return f"lists no clip{lists}; folds: {', '.join(sorted(have - {''})) or 'none'}"


def _distinct(task: Task, clips: list[Clip]) -> list[Clip]:
    """Return the clips with keys that differ: Clotho gives a name to clips of two splits, of which the later keeps it."""
    seen: dict[str, Clip] = {}
    for clip in reversed(clips):
        other = seen.get(clip.key)
        if other and task.test and clip.fold != other.fold and not (clip.origin and clip.origin == other.origin):
            clip = replace(clip, key=told_apart(f"{clip.fold}/{clip.source_id}"))
        if seen.setdefault(clip.key, clip) is not clip:
            told = sources.same_key(clip.source_id, seen[clip.key].source_id, clip.key)
            raise InputError("--task-dir", clip.uri, told)
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
