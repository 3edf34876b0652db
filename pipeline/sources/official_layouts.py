"""Datasets in the layout of their authors: the files that list them, and the split that each file is."""

from typing import NamedTuple

from pipeline import storage
from pipeline.sources.clip import Clip, key_of, stem, suffix_of
from pipeline.sources.listing_stats import ListingStats, end_of

SPLIT_LISTS = {  # name of a list -> the split of the files it names
    "train_filtered.txt": "train", "valid_filtered.txt": "validation", "test_filtered.txt": "test",  # GTZAN, by Sturm
    "validation_list.txt": "validation", "testing_list.txt": "test",  # Speech Commands
}  # fmt: skip
TESTING_LIST = "testing_list.txt"  # Speech Commands': the files that no list names are the training split
GENRES = ("genres_original", "genres", "Data/genres_original")  # GTZAN's folder of genres
UNLABELLED = "_background_noise_"


class Listing(NamedTuple):
    """A file, or a folder, inside a dataset's folder that lists clips."""

    files: tuple[str, ...]  # the first that exists is read
    split: str = ""  # the fold of all its clips; '' where the listing has it, or there is none
    is_distinctive: bool = True  # False: a name that any dataset may have, and that does not identify this one


LISTINGS: dict[str, tuple[Listing, ...]] = {
    "esc50": (Listing(("meta/esc50.csv",)),),
    "urbansound8k": (Listing(("metadata/UrbanSound8K.csv",)),),
    "fsd50k": (Listing(("FSD50K.ground_truth/dev.csv",)), Listing(("FSD50K.ground_truth/eval.csv",), "test")),
    "vggsound": (Listing(("vggsound.csv", "vggsound_test.csv")),),
    "audioset": (
        Listing(("balanced_train_segments.csv",), "train"),
        Listing(("unbalanced_train_segments.csv",), "unbalanced"),  # two million: an evaluation reads it on request
        Listing(("eval_segments.csv",), "test"),
    ),
    "audioset-strong": (
        Listing(("audioset_train_strong.tsv",), "train", is_distinctive=False),  # beside the weak segments they would
        Listing(("audioset_eval_strong.tsv",), "test", is_distinctive=False),  # list clips twice
    ),
    "desed": (
        Listing(("metadata/train/audioset_strong.tsv",), "train"),
        Listing(("metadata/validation/validation.tsv",), "validation"),
        Listing(("metadata/eval/public.tsv",), "public"),
    ),
    "urban-sed": (Listing(("annotations",), is_distinctive=False),),  # event_lists.py recognises it
    "maestro-real": (Listing(("development_annotation",), is_distinctive=False),),
    "gtzan": (Listing(GENRES),),
    "speech-commands": (Listing(("testing_list.txt",)),),
    "audiocaps": tuple(Listing((f"{split}.csv",), split, is_distinctive=False) for split in ("train", "val", "test")),
    "clotho": tuple(
        Listing((f"clotho_captions_{split}.csv",), split) for split in ("development", "validation", "evaluation")
    ),
}


def list_classes(root: str, stats: ListingStats) -> list[Clip]:
    """Return the clips of folders that are classes, with the splits of the lists beside them: GTZAN, Speech Commands.

    A file that a list names is listed even where it is absent. A file that no list names is left out and counted; in
    Speech Commands it is of the training split.
    """
    lists = {name: split for name, split in SPLIT_LISTS.items() if name in storage.list_names(root)}
    candidates = [storage.join(root, name) for name in GENRES] if TESTING_LIST not in lists else []
    folder = next((uri for uri in candidates if storage.is_folder(uri)), root)
    files = _audio(folder, stats)
    split = {stem(line): fold for name, fold in lists.items() for line in _lines(root, name)}
    rest = "train" if TESTING_LIST in lists else None if lists else ""
    found = []
    for name in sorted({*files, *split}):
        stats.read["files"] += 1
        fold = split.get(name, rest)
        if fold is None:
            stats.skipped["in no list of a split"] += 1
            continue
        uri = files.get(name, storage.join(folder, f"{name}.wav"))  # an absent file is taken to be .wav
        path = uri.removeprefix(f"{folder}/")
        found.append(Clip(key=key_of(path), uri=uri, source_id=path, tags=(name.partition("/")[0],), fold=fold))
    return found


def _lines(root: str, name: str) -> list[str]:
    return storage.read_text(storage.join(root, name)).split()


def _audio(root: str, stats: ListingStats) -> dict[str, str]:
    """Return {`<folder>/<name without suffix>`: URI} of the audio one folder deep; lists may name another suffix."""
    folders = [n for n in storage.list_names(root) if n != UNLABELLED and storage.is_folder(storage.join(root, n))]
    found = {}
    for folder in folders:
        for name in storage.list_names(storage.join(root, folder)):
            if suffix_of(name):
                found[f"{folder}/{stem(name)}"] = storage.join(root, folder, name)
            else:
                stats.skip("files", end_of(name))
    return found
