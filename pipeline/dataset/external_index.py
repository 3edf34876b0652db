"""An index of tars that others wrote: where each captioned clip lies, so that training reads them like our own shards.

<out>/index.parquet   a row for each captioned clip: key, uri of its tar, offset and size of its audio, text, tags
<out>/index.json      the patterns, how many clips, what is wrong with those that are left out; published last
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from pipeline import storage
from pipeline.sources.clip import Clip

TABLE_FILE, MARK_FILE = "index.parquet", "index.json"
INDEX = pa.schema(
    [
        ("key", pa.string()),
        ("uri", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("text", pa.list_(pa.string())),
        ("tags", pa.list_(pa.string())),
    ]
)


def exists(uri: str) -> bool:
    """Return whether a folder holds a finished index."""
    return storage.exists(storage.join(uri, MARK_FILE)) and storage.exists(storage.join(uri, TABLE_FILE))


def write(uri: str, clips: Sequence[Clip], info: Mapping[str, object]) -> None:
    """Publish an index of these clips; `info` becomes index.json."""
    rows = [
        {"key": c.key, "uri": c.uri, "offset": c.offset, "size": c.size, "text": c.captions, "tags": c.tags}
        for c in clips
    ]
    storage.publish_table(storage.join(uri, TABLE_FILE), pa.Table.from_pylist(rows, schema=INDEX))
    storage.publish_json(storage.join(uri, MARK_FILE), info)


def read(uri: str) -> pa.Table:
    """Read the table."""
    return storage.read_table(storage.join(uri, TABLE_FILE))
