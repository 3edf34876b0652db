"""The parts of a source: the files and folders that list its clips, each with its kind.

A folder is its metadata table, else its tars, else its Parquet files, else a dataset in its official layout, else its audio
files; folders inside it name a split (train, test, ...), a class, or nothing (audio, data, ...).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch

from braceexpand import braceexpand

from pipeline import storage
from pipeline.sources import event_lists
from pipeline.sources.clip import suffix_of
from pipeline.sources.official_layouts import GENRES, LISTINGS, SPLIT_LISTS

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # of a folder, as Hugging Face's AudioFolder has them
SPLITS = {
    "train", "training", "val", "valid", "validation", "dev", "development", "test", "testing", "eval", "evaluation",
}  # fmt: skip
PLAIN = {
    "audio",
    "audios",
    "clips",
    "data",
    "flac",
    "mp3",
    "ogg",
    "sounds",
    "wav",
    "wavs",
}  # folders that name no class
MAX_DEPTH = 3  # levels of folders inside a source
KINDS = {  # end of a name -> kind
    ".tar": "tar", ".parquet": "parquet", ".yaml": "macs", ".yml": "macs", ".csv": "table", ".tsv": "table",
    ".txt": "table", ".json": "json", ".jsonl": "json", ".ndjson": "json",
}  # fmt: skip
ARCHIVE_REMEDIES = {  # end of a name -> how to make it readable
    ".tar.gz": "gunzip it, clips are read from the middle of a tar",
    ".tgz": "gunzip it, clips are read from the middle of a tar",
    ".tar.zst": "unzstd it, clips are read from the middle of a tar", ".zip": "unzip it and give the folder",
    ".7z": "unpack it and give the folder", ".rar": "unpack it and give the folder",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Part:
    """A file or folder that lists clips."""

    uri: str
    kind: str  # a value of KINDS; folder: of audio; classes: with lists of splits; lists: of events; file: one clip
    name: str  # its path inside the source
    fold: str = ""  # of those of its clips that list none
    label: str = ""  # of its clips, where it is the folder of a class
    folders: tuple[str, ...] = ()  # the folders inside a folder, which are parts themselves


def find_parts(uri: str) -> list[Part]:
    """Return the parts of a source in order.

    Raises:
        FileNotFoundError: when the source, or a file that a pattern spells out, is absent.
        ValueError: when the source lists no clips.
    """
    folder, _, name = uri.rpartition("/")
    if any(mark in name for mark in "*?{") and not storage.exists(uri):
        return [_file(storage.join(folder, match), match) for match in _expand(folder, name)]
    if storage.is_folder(uri):
        return list(_inside(uri, "", "", "", MAX_DEPTH))
    if not storage.exists(uri):
        raise FileNotFoundError(uri)
    return [_file(uri, name)]


def _file(uri: str, name: str, fold: str = "") -> Part:
    """Return the part that a file is, by the end of its name; a name without an end is a table."""
    lower = name.lower()
    for end, remedy in ARCHIVE_REMEDIES.items():
        if lower.endswith(end):
            raise ValueError(f"{name} is an archive: {remedy}")
    plain = lower.removesuffix(".gz")
    kind = next((kind for end, kind in KINDS.items() if plain.endswith(end)), "")
    if not kind and suffix_of(name):
        kind = "file"
    if not kind and "." in plain.strip("."):
        raise ValueError(
            f"{name} is nothing that lists clips; give a file that ends in {', '.join(KINDS)}, or a folder"
        )
    first, sign, _ = name.rpartition("/")[2].partition("-")
    if kind == "parquet" and sign and first in SPLITS:  # `train-00000-of-00012.parquet`, as Hugging Face writes them
        fold = fold or first
    return Part(uri=uri, kind=kind or "table", name=name, fold=fold)


def _inside(uri: str, path: str, fold: str, label: str, depth: int) -> Iterator[Part]:
    """Yield the parts of a folder; `path` is its path inside the source, with a slash at the end unless it is empty."""
    names = storage.list_names(uri)
    for table in TABLES:
        if table in names:
            yield _file(storage.join(uri, table), path + table, fold)
            return
    for end in (".tar", ".parquet"):  # tars first: datasets of shards have Parquet ledgers beside them
        if packs := [name for name in names if name.endswith(end)]:
            yield from (_file(storage.join(uri, name), path + name, fold) for name in packs)
            return
    if official := list(_official(uri, path, names)) or list(_split_tables(uri, path, names)):
        yield from official
        return
    folders = _folders(uri, names)
    if any(suffix_of(name) for name in names) or not folders:
        yield Part(uri=uri, kind="folder", name=path, fold=fold, label=label, folders=tuple(folders))
    for name in folders if depth else ():
        inner = {"fold": fold, "label": label}
        if name.lower() in SPLITS and not fold:
            inner["fold"] = name
        elif name.lower() not in PLAIN and not label:
            inner["label"] = name.replace("_", " ")
        yield from _inside(storage.join(uri, name), f"{path}{name}/", **inner, depth=depth - 1)


def _official(uri: str, path: str, names: list[str]) -> Iterator[Part]:
    """Yield the listings of a dataset in its official layout."""
    if set(names) & {*SPLIT_LISTS, *GENRES}:
        yield Part(uri=uri, kind="classes", name=path)
        return
    if event_lists.find_folders(uri, names):
        yield Part(uri=uri, kind="lists", name=path)
        return
    for listing in (listing for listings in LISTINGS.values() for listing in listings if listing.is_distinctive):
        candidates = [file for file in listing.files if file.partition("/")[0] in names]
        if file := next((file for file in candidates if storage.exists(storage.join(uri, file))), ""):
            yield _file(storage.join(uri, file), path + file, listing.split)


def _split_tables(uri: str, path: str, names: list[str]) -> Iterator[Part]:
    """Yield the tables that are named by a split, such as train.csv and test.jsonl."""
    for name in names:
        split, sign, end = name.lower().partition(".")
        if sign and split in SPLITS and KINDS.get(f".{end.removesuffix('.gz')}") in ("table", "json"):
            yield _file(storage.join(uri, name), path + name, split)


def _folders(uri: str, names: list[str]) -> list[str]:
    """Return which of the names in a folder are folders; one listing rules out the files, however many there are."""
    if not (candidates := [name for name in names if _may_be_folder(name)]):
        return []
    files = {name for name, _ in storage.file_sizes(uri)}
    return [name for name in candidates if name not in files and storage.is_folder(storage.join(uri, name))]


def _may_be_folder(name: str) -> bool:
    """Return whether a name is to be checked for a folder: hidden and private ones, and names of files, are not."""
    return (
        not name.startswith((".", "_")) and not suffix_of(name) and not name.endswith((*KINDS, ".md", ".gz", ".html"))
    )


def _expand(folder: str, pattern_name: str) -> list[str]:
    """Return the names in a folder that a pattern matches. Raises FileNotFoundError when a name it spells out is absent."""
    names = storage.list_names(folder)
    patterns = set(braceexpand(pattern_name))
    spelt = {pattern for pattern in patterns if not any(mark in pattern for mark in "*?")}
    absent = sorted(spelt - set(names))
    found = [name for name in names if name in spelt or any(fnmatch(name, pattern) for pattern in patterns - spelt)]
    if absent or not found:
        more = f" and {len(absent) - 1} more of {len(spelt)}" if len(absent) > 1 else ""
        raise FileNotFoundError(storage.join(folder, (absent or [pattern_name])[0]) + more)
    return found
