"""What the files hold: JSON, text and Parquet tables."""

import gzip
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.arrow import LOCAL, locate, open_random_access
from pipeline.storage.files import open_stream, publish, read


@contextmanager
def open_text(uri: str, errors: str = "strict") -> Iterator[TextIO]:
    """Open UTF-8 text as a stream, with or without a byte order mark; a name that ends in .gz is decompressed."""
    with open_stream(uri) as file:
        contents = gzip.GzipFile(fileobj=file) if uri.endswith(".gz") else file
        yield io.TextIOWrapper(contents, encoding="utf-8-sig", errors=errors, newline="")


def open_parquet(uri: str, pre_buffer: bool = False) -> pq.ParquetFile:
    """Open a Parquet file to read some of its row groups. The caller closes it.

    With `pre_buffer` one request reads all columns of a row group: for small groups that are read whole.
    """
    filesystem, path = locate(uri)
    return pq.ParquetFile(path if filesystem is LOCAL else open_random_access(filesystem, path), pre_buffer=pre_buffer)


def read_json(uri: str) -> Any:
    """Read one JSON document."""
    return json.loads(read(uri))


def read_text(uri: str) -> str:
    """Read UTF-8 text, with or without a byte order mark; a name that ends in .gz is decompressed."""
    data = read(uri)
    return (gzip.decompress(data) if uri.endswith(".gz") else data).decode("utf-8-sig")


def read_table(uri: str) -> pa.Table:
    """Read one Parquet file."""
    return pq.read_table(pa.BufferReader(read(uri)))


def publish_json(uri: str, value: Any) -> None:
    """Publish one JSON document."""
    publish(uri, json_bytes(value))


def publish_table(uri: str, table: pa.Table) -> None:
    """Publish one Parquet file."""
    publish(uri, table_bytes(table))


def json_bytes(value: Any) -> bytes:
    """Return a JSON document, indented for human readers."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def table_bytes(table: pa.Table) -> bytes:
    """Return a table as Parquet."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def plain(value: Any) -> Any:
    """Return a value as it is after a round trip through JSON: tuples are lists, keys are strings."""
    return json.loads(json.dumps(value))
