"""What users have -> clips.

A source is a CSV, a folder, or packed audio, on disk or at s3://, gs:// and hf:// URIs:

    <name>.csv, .csv.gz          AudioSet segments, or any table with a file column (pipeline/tables.py)
    AudioCaps' and Clotho's CSVs, MACS.yaml        as published (pipeline/captioned.py)
    a folder                     its metadata.csv, else its tars, else its Parquet files, else its audio files
    *.tar, 0000{0..9}.tar        WebDataset tars (pipeline/packed.py); a name may hold *, ? and {a..b}
    *.parquet                    Hugging Face style tables with audio bytes
"""

import csv
import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from itertools import islice

import numpy as np
import pyarrow as pa
from braceexpand import braceexpand

from pipeline import audio, captioned, packed, storage, tables
from pipeline.cli import InputError
from pipeline.clip import MAX_KEY, Clip

FOLDER_TABLE = "metadata.csv"  # read when the source is a folder; without it, what lies in the folder is listed
WANTED = "give the CSV, folder, tars or Parquet files of your clips"
LISTERS = 16  # packed files listed at a time; from object storage listing waits for bytes


def list_clips(source: str, folds: Iterable[str] = (), flag: str = "--source") -> Iterator[Clip]:
    """Yield the clips of a source in a fixed order, without holding them.

    Args:
        source: path or URI, as above.
        folds: keep only rows with one of these values in the fold column; empty keeps all.
        flag: the command-line flag to name in an error.

    Raises:
        InputError: when the source is absent, has no usable column or a wrong line, or gives a key that cannot be stored.
    """
    if not source:
        raise InputError(flag, source, WANTED)
    try:
        for clip in _list(_files(storage.resolve(source))):
            if not folds or clip.fold in folds or (clip.fault and not clip.fold):  # a damaged file has no fold
                if not clip.key:
                    raise InputError(flag, source, f"{clip.source_id!r} gives an empty key; rename it")
                assert len(clip.key.encode()) <= MAX_KEY, clip.key
                yield clip
    except FileNotFoundError as error:
        raise InputError(flag, source, f"no such file ({error}); give the CSV or folder of your clips") from None
    except KeyError as error:
        raise InputError(flag, source, f"a table has no column {error}") from None
    except (ValueError, OSError, csv.Error, pa.ArrowException) as error:
        raise InputError(flag, source, f"cannot be read: {error}") from None


def read_clips(source: str, folds: Iterable[str] = (), flag: str = "--source") -> list[Clip]:
    """Return the clips of a source, at least one, with keys that differ. Raises InputError as `list_clips` does."""
    clips = list(list_clips(source, folds, flag))
    if not clips:
        raise InputError(flag, source, no_clip(folds))
    seen: dict[str, Clip] = {}
    for clip in clips:
        if seen.setdefault(clip.key, clip) is not clip:
            raise InputError(flag, source, same_key(seen[clip.key].source_id, clip.source_id, clip.key))
    return clips


def stamp(source: str) -> str:
    """Return a mark that changes when the files that list a source do, those that tables read beside them included.

    On disk it also changes when files come to `audio/` or go; object stores do not tell that short of listing all:
    there clips whose audio came after the plan are found by `pipeline retry --reason missing`.
    """
    uri = storage.resolve(source)
    uris = _files(uri)
    if uris == [uri] and storage.is_folder(uri):
        return hashlib.sha256(repr((uris, storage.list_names(uri))).encode()).hexdigest()
    beside = [] if uris[0].endswith((".tar", ".parquet")) else tables.read_beside(uris[0])
    return hashlib.sha256(repr((uris, storage.stamps([*uris, *beside]))).encode()).hexdigest()


def no_clip(folds: Iterable[str]) -> str:
    """Return what to say of a source without clips."""
    return f"lists no clip{f' in folds {list(folds)}' if folds else ''}"


def same_key(one: str, other: str, key: str) -> str:
    """Return what to say of two clips that would share a name in a shard."""
    return f"{one!r} and {other!r} give the same key {key!r}; rename or drop one"


def read_bytes(uri: str, offset: int = -1, size: int = -1, fault: str = "") -> bytes:
    """Read the encoded audio of a clip, given its place as in `Clip`. Raises AudioError when there is none."""
    if fault:
        reason, _, detail = fault.partition(": ")
        raise audio.AudioError(reason, detail)
    try:
        if offset < 0:
            return storage.read(uri, most=audio.MAX_BYTES)
        if size >= 0:
            if size > audio.MAX_BYTES:
                raise storage.TooLarge(f"{size} bytes")
            return storage.read(uri, offset, size)
        data = packed.read_row(uri, offset)
        if data and len(data) > audio.MAX_BYTES:
            raise storage.TooLarge(f"{len(data)} bytes")
    except FileNotFoundError as error:
        raise audio.AudioError("missing", str(error)) from error
    except storage.TooLarge as error:
        raise audio.AudioError("too_large", str(error)) from error
    except (OSError, pa.ArrowException) as error:
        raise audio.AudioError("unreadable", str(error)) from error
    if data is None:
        raise audio.AudioError("missing", f"row {offset} of {uri} has no audio")
    return data


def read_samples(clip: Clip, sample_rate_hz: int = audio.SAMPLE_RATE_HZ) -> np.ndarray:
    """Read and decode the audio of a clip; int16 (T,). Raises AudioError for whatever is wrong with it."""
    return audio.decode(read_bytes(clip.uri, clip.offset, clip.size, clip.fault), sample_rate_hz)


def tag_vocabulary(clips: Iterable[Clip]) -> list[str]:
    """Return the sorted distinct tags."""
    return sorted({tag for clip in clips for tag in clip.tags})


def _files(uri: str) -> list[str]:
    """Return the files that list a source, in order; a folder of audio files stands for itself."""
    folder, _, name = uri.rpartition("/")
    if any(mark in name for mark in "*?{") and not storage.exists(uri):
        return [storage.join(folder, n) for n in _expand(folder, name)]
    if storage.is_folder(uri):
        table = storage.join(uri, FOLDER_TABLE)
        if storage.exists(table):
            return [table]
        names = storage.list_names(uri)
        for suffix in (".tar", ".parquet"):  # tars first: datasets of shards have Parquet ledgers beside them
            if packs := [storage.join(uri, n) for n in names if n.endswith(suffix)]:
                return packs
    return [uri]


def _expand(folder: str, name: str) -> list[str]:
    """Return the names in a folder that a pattern stands for. Raises FileNotFoundError when one it spells out is absent."""
    have = storage.list_names(folder)
    patterns = set(braceexpand(name))
    spelt = {pattern for pattern in patterns if not any(mark in pattern for mark in "*?")}
    absent = sorted(spelt - set(have))
    found = [n for n in have if n in spelt or any(fnmatch(n, pattern) for pattern in patterns - spelt)]
    if absent or not found:
        raise FileNotFoundError(storage.join(folder, (absent or [name])[0]))
    return found


def _list(uris: list[str]) -> Iterator[Clip]:
    """List files in their order, several packed ones at a time."""
    with ThreadPoolExecutor(LISTERS) as pool:
        rest = iter(uris)
        ahead = [pool.submit(_list_file, uri) for uri in islice(rest, LISTERS)]
        while ahead:
            yield from ahead.pop(0).result()
            ahead += [pool.submit(_list_file, uri) for uri in islice(rest, 1)]


def _list_file(uri: str) -> Iterable[Clip]:
    if uri.endswith(".tar"):
        return packed.list_tar(uri)
    if uri.endswith(".parquet"):
        return list(packed.list_parquet(uri))  # here and now, in the lister's thread
    if uri.endswith((".yaml", ".yml")):
        return captioned.list_macs(uri)
    return tables.list_folder(uri) if storage.is_folder(uri) else tables.list_table(uri)
