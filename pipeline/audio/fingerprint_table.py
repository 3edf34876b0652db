"""The table that `pipeline fingerprint` writes: the name and the fingerprint of each clip."""

import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import InputError

SCHEMA = pa.schema([("name", pa.string()), ("words", pa.binary())])  # words: uint32, little-endian


def read(uri: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, words) of a table."""
    for row in storage.read_table(storage.resolve(uri)).to_pylist():
        yield row["name"], np.frombuffer(row["words"], "<u4")


def revision(uri: str, flag: str = "--firewall.fingerprints") -> str:
    """Return a hash of a table. Raises InputError naming the flag when the file is no such table."""
    try:
        data = storage.read(storage.resolve(uri))
        columns = pq.read_schema(pa.BufferReader(data)).names
    except (OSError, pa.ArrowException) as error:
        raise InputError(flag, uri, f"cannot be read: {error}") from None
    if columns != SCHEMA.names:
        raise InputError(flag, uri, f"has columns {columns}; `pipeline fingerprint` makes the table")
    return hashlib.sha256(data).hexdigest()
