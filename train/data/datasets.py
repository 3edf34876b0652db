"""Datasets of four kinds -> clips to train on: shards, an index of external tars, an assignment of texts, a listing.

The clips of each are written to a file that all processes of the machine map (train/data/clip_file.py).
"""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import sources, storage
from pipeline.dataset import assigned, external_index, phrases, shards
from pipeline.dataset.selection import SelectionConfig, select
from pipeline.errors import InputError
from train.data import clip_file
from train.data.clip_sets import CLIPS, TARS, ListedClips, TableClips, tables_of
from train.data.loader import Clips

log = logging.getLogger(__name__)
DIGEST_BYTES = 16  # of a clip's SHA-256: enough to find any damage
MEMBERS = pa.schema([*CLIPS, ("tar", pa.int32()), ("offset", pa.int64()), ("size", pa.int64())])


def open_data(
    data: Sequence[str],
    selection: SelectionConfig,
    label_phrases: Sequence[str] = (),
    names: Sequence[str] = (),
    columns: str = "",
    timed: bool = False,
) -> list[TableClips]:
    """Open datasets for training, each one clips that have a caption.

    Args:
        data: of each a folder of shards that `pipeline caption` wrote, what `pipeline index` or `pipeline assign` wrote, or
            any listing of captioned clips that `pipeline.sources` reads.
        selection: which clips and captions of shards.
        label_phrases: captions for clips of a listing that have only tags.
        columns: of listings, where they are named otherwise, as in file=path.
        timed: read what sounds when, too, of shards that state it.
        names: of the files (train/data/clip_file.py) that another process wrote of these datasets, on any machine.

    Raises:
        InputError: when there is none, one is not there, is empty, or an overlay is missing.
        JobError: when a dataset has changed since its file was written.
    """
    if not data:
        raise InputError("--data", "", "give the --out of a finished `python -m pipeline caption`")
    return [
        _open(uri, selection, label_phrases, name, columns, timed)
        for uri, name in zip(data, names or [""] * len(data), strict=True)
    ]


def names(clips: Sequence[Clips]) -> list[str]:
    """Return the names of the files of the datasets that `open_data` opened; `clips` may be subsets of them."""
    return [dataset.name for dataset in tables_of(clips)]


def check_present(clips: Sequence[Clips]) -> None:
    """Raise InputError when a tar is missing, or ends before the last clip in it."""
    for dataset in tables_of(clips):
        ends = np.zeros(len(dataset.tars), np.int64)
        for tar, offset, size in dataset.locations:
            np.maximum.at(ends, tar, offset + size)
        read = [(tar, int(end)) for tar, end in zip(dataset.tars, ends, strict=True) if end]
        sizes = [size for size, _ in storage.stamps([tar for tar, _ in read])]
        short = [f"{tar} has {size} bytes of {end}" for (tar, end), size in zip(read, sizes, strict=True) if size < end]
        if short:
            raise InputError("--data", short[0], f"{len(short)} of {len(read)} tars are missing or cut short")


def _open(
    data: str, selection: SelectionConfig, label_phrases: Sequence[str], name: str, columns: str, timed: bool
) -> TableClips:
    def build() -> str:
        name = clip_file.write(*_tables(data, selection, label_phrases, columns, timed))
        pa.default_memory_pool().release_unused()  # reading the ledgers took it
        return name

    name = name or build()
    clips = TableClips(clip_file.share(name, build), name)
    if not len(clips.keys):
        raise InputError("--data", data, "no clip has a caption to train on")
    return clips


def _tables(
    data: str, selection: SelectionConfig, label_phrases: Sequence[str], columns: str, timed: bool
) -> tuple[pa.Schema, Iterable[pa.Table]]:
    """Return the schema of the clips of a dataset, and tables of them."""
    uri = storage.resolve(data)
    if external_index.exists(uri):
        _refuse_selection(data, selection)
        return _indexed(uri)
    if storage.exists(storage.join(uri, "sizes.json")):
        return _shards(data, selection, timed and shards.is_timed(uri))
    _refuse_selection(data, selection)
    if assigned.exists(uri):
        clips = ListedClips(assigned.read(uri), ())
        return clips.table.schema, [clips.table]
    try:
        clips = ListedClips(sources.read_clips(data, flag="--data", column_names=columns), label_phrases)
    except InputError as error:
        if error.args[0] != "--data":
            raise
        remedy = f"no finished dataset of shards, and as a listing it {error.args[2]}"
        raise InputError("--data", data, remedy) from None
    log.info("%s: %d clips used + %d without a caption", data, len(clips.keys), clips.left_out)
    return clips.table.schema, [clips.table]


def _refuse_selection(data: str, selection: SelectionConfig) -> None:
    if selection.captions or selection.filter.audit:
        name = selection.captions or selection.filter.audit
        raise InputError("--data", data, f"has no overlay {name!r}: it is no dataset that `pipeline caption` finished")
    if selection.sample_fraction < 1:
        raise InputError("--sample-fraction", selection.sample_fraction, f"is for datasets of shards; {data} is none")


def _shards(data: str, config: SelectionConfig, timed: bool) -> tuple[pa.Schema, Iterable[pa.Table]]:
    more = (shards.PHRASES,) if timed else ()
    try:
        sizes = shards.sizes(data)
        chosen = select(data, config, ("tags", "shard", "flac_offset", "flac_size", "sha256", *more))
    except FileNotFoundError as error:
        remedy = f"{error}; index tars of other programs first, with `python -m pipeline index`"
        raise InputError("--data", data, remedy) from None
    numbers = list(sizes)
    tars = [storage.join(storage.resolve(data), shards.tar_name(number)) for number in numbers]
    fields = [pa.field("sha256", pa.binary(DIGEST_BYTES)), *(pa.field(name, phrases.TYPE) for name in more)]
    schema = pa.schema([*MEMBERS, *fields]).with_metadata({TARS: json.dumps(tars)})

    def tables() -> Iterator[pa.Table]:
        used, written = 0, sum(sizes.values())
        try:
            for rows in chosen:
                used += len(rows)
                tar = np.searchsorted(numbers, rows["shard"].to_numpy())
                digest = [bytes.fromhex(each)[:DIGEST_BYTES] for each in rows["sha256"].to_pylist()]
                columns = [rows[name] for name in ("key", "text", "tags")]
                located = [tar, rows["flac_offset"], rows["flac_size"], digest]
                yield _table(schema, [*columns, *located, *(rows[name] for name in more)])
        except FileNotFoundError as error:
            remedy = f"the dataset is not whole, it lacks {error}; see `python -m pipeline verify --data {data}`"
            raise InputError("--data", data, remedy) from None
        log.info("%s: %d clips = %d used + %d without a caption that is chosen", data, written, used, written - used)

    return schema, tables()


def _indexed(uri: str) -> tuple[pa.Schema, Iterable[pa.Table]]:
    table = external_index.read(uri)
    tars = pc.unique(table["uri"]).sort()
    schema = MEMBERS.with_metadata({TARS: json.dumps(tars.to_pylist())})
    tar = pc.index_in(table["uri"], tars)
    columns = [table[name] for name in ("key", "text", "tags")]
    return schema, [_table(schema, [*columns, tar, table["offset"], table["size"]])]


def _table(schema: pa.Schema, columns: Sequence[object]) -> pa.Table:
    return pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema)
