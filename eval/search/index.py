"""The index of clips: its format on disk, how it is opened, and what it names.

<index>/run.json      the revision of the checkpoint that the vectors are of; one index holds vectors of one model
<index>/clips.lance   a LanceDB table with a row for each clip, `schema` below
<index>/index.json    `IndexInfo`: the checkpoint, and each dataset with its hash; published last: the index is whole

Every change of the table is one commit of LanceDB. A reader sees the table before the change or after it.
"""

import dataclasses
import datetime
import os
import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline import storage
from pipeline.errors import InputError

TABLE, INFO_FILE = "clips", "index.json"
ID = re.compile(r"[0-9a-f]{24}")
BUILT_BY = "`python -m eval index-search`"
PROBES = 64  # partitions that a query of an approximate index compares; tests/bench/search.py measures the recall
REFRESH = datetime.timedelta(seconds=5)  # after which a reader looks for a newer version of the table
MAX_EXACT = 50_000  # clips that pass a filter, up to which all of them are compared: their nearest lie in any partition
MAX_UNTRAINED = 0.5  # rows that came since the vector index was trained, as a share of those that it was trained on


@dataclass(frozen=True, kw_only=True)
class IndexedDataset:
    """A dataset of an index."""

    uri: str
    """Folder or URI of the dataset."""
    name: str
    """Last part of the URI."""
    captions: str
    """Overlay whose captions are in the index; empty where they are the dataset's own."""
    clips: int
    """Clips of the dataset in the index."""
    missing: int
    """Clips of the dataset whose audio could not be read."""
    hash: str
    """Hash of the clips, their captions and their tags, hexadecimal."""


@dataclass(frozen=True, kw_only=True)
class IndexInfo:
    """What index.json states."""

    uri: str
    """Folder or URI of the index."""
    model: str
    """Checkpoint that made the vectors."""
    revision: str
    """Hash of its weights, hexadecimal."""
    dim: int
    """Numbers in a vector."""
    clips: int
    """Clips in the index."""
    datasets: tuple[IndexedDataset, ...]
    """The datasets, in the order of --data."""


def schema(dim: int) -> pa.Schema:
    """Return the schema of the table for vectors of `dim` numbers."""
    return pa.schema(
        [
            ("id", pa.string()),  # hash of dataset and key, hexadecimal
            ("vector", pa.list_(pa.float32(), dim)),  # of the audio, unit length
            ("key", pa.string()),
            ("captions", pa.list_(pa.string())),  # best first
            ("tags", pa.list_(pa.string())),
            ("duration_s", pa.float64()),
            ("source_id", pa.string()),
            ("data", pa.string()),  # folder or URI of the dataset
            ("unit", pa.string()),  # the part of the dataset that is written as one: a shard, or 1,000 clips of a table
            ("mark", pa.string()),  # hash of all rows of the unit but their vectors
            ("audio", pa.string()),  # what the vector was made of: hash of the audio, or of its place and date
            ("uri", pa.string()),  # of the file that holds the audio
            ("offset", pa.int64()),  # of the audio in the file, bytes; its row in a Parquet file, where size is -1
            ("size", pa.int64()),  # of the audio in the file, bytes
            ("cut_start_s", pa.float64()),  # the part of the audio that is the clip; 0 and 0: all of it
            ("cut_end_s", pa.float64()),
        ]
    )


def connect(uri: str, flag: str = "--index") -> Any:
    """Return the LanceDB database in a folder or at an s3:// or gs:// URI.

    Raises:
        InputError: naming the flag when LanceDB is not installed.
    """
    os.environ.setdefault("LANCEDB_LOG", "error")  # it warns of columns that LanceDB's own hybrid query leaves out
    try:
        import lancedb  # here: it takes seconds, and it is an extra
    except ModuleNotFoundError as error:
        remedy = f"a search index needs LanceDB ({error}); run `pip install -e '.[search]'`"
        raise InputError(flag, uri, remedy) from None
    return lancedb.connect(uri, storage_options=_storage_options(uri), read_consistency_interval=REFRESH)


def open_table(uri: str, flag: str = "--index", dim: int = 0) -> Any:
    """Return the table of an index, made anew with vectors of `dim` numbers where there is none.

    Raises:
        InputError: naming the flag when there is no table and `dim` is 0, or LanceDB cannot read what is there.
    """
    database = connect(uri, flag)
    try:
        if dim:
            return database.create_table(TABLE, schema=schema(dim), exist_ok=True)
        return database.open_table(TABLE)
    except (ValueError, OSError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(flag, uri, f"its table cannot be opened ({reason}); {BUILT_BY} makes an index") from None


def read_info(uri: str, flag: str = "--index") -> IndexInfo:
    """Read index.json.

    Raises:
        InputError: naming the flag when there is no whole index.
    """
    if not uri:
        raise InputError(flag, uri, f"give the --out of {BUILT_BY}")
    folder = storage.resolve(uri)
    try:
        content = dict(storage.read_json(storage.join(folder, INFO_FILE)))
        datasets = tuple(IndexedDataset(**each) for each in content.pop("datasets"))
        return IndexInfo(**(content | {"uri": folder, "datasets": datasets}))
    except FileNotFoundError:
        raise InputError(flag, uri, f"no finished index there; {BUILT_BY} makes one, and goes on with one") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(flag, uri, f"its {INFO_FILE} cannot be read ({error}); run {BUILT_BY} again") from None


def publish_info(info: IndexInfo) -> None:
    """Publish index.json."""
    storage.publish_json(storage.join(info.uri, INFO_FILE), dataclasses.asdict(info))


def quoted(text: str) -> str:
    """Return a text as a literal of LanceDB's SQL."""
    return "'" + text.replace("'", "''") + "'"


def optimize(table: Any, threshold: int) -> None:
    """Bring the indexes of a table up to its rows: full-text on captions, labels on tags, vectors from `threshold` rows on.

    Below the threshold there is no vector index, and every search compares all vectors.
    """
    from lancedb.index import FTS, BTree, LabelList

    present = {name: found for found in table.list_indices() for name in found.columns}
    for column, config in (("captions", FTS()), ("tags", LabelList()), ("id", BTree())):
        if column not in present:
            table.create_index(column, config=config)
    rows = table.count_rows()
    if rows < threshold and "vector" in present:
        table.drop_index(present["vector"].name)
    elif rows >= threshold and ("vector" not in present or _outgrown(table, present["vector"].name)):
        table.create_index("vector", config=vector_config())
    table.optimize()


def vector_config() -> Any:
    """Return the kind of the vector index: partitions that hold the vectors as they are."""
    from lancedb.index import IvfFlat

    return IvfFlat(distance_type="cosine")


def nearest(query: Any) -> Any:
    """Return a vector query of LanceDB by cosine. Of a vector index it looks into PROBES partitions, or more where these
    hold too few clips that pass the filter."""
    return query.distance_type("cosine").minimum_nprobes(PROBES).maximum_nprobes(0)


def narrow(table: Any, query: Any, where: str) -> Any:
    """Return a vector query of LanceDB among the clips that pass a filter; MAX_EXACT or fewer are all compared."""
    query = query.where(where, prefilter=True)
    return query.bypass_vector_index() if table.count_rows(where) <= MAX_EXACT else query


def _outgrown(table: Any, name: str) -> bool:
    """Return whether so many rows came since the index was trained that its partitions may no longer fit."""
    stats = table.index_stats(name)
    return bool(stats.num_unindexed_rows > MAX_UNTRAINED * stats.num_indexed_rows)


def _storage_options(uri: str) -> dict[str, str]:
    """Return what LanceDB must be given of the environment that boto3 and Arrow read by themselves."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not (uri.startswith("s3://") and endpoint):
        return {}
    return {"aws_endpoint": endpoint, "allow_http": str(endpoint.startswith("http://")).lower()}
