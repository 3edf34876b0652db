"""Open, list and publish files on local disk, s3:// and gs://. Nothing else knows a URI scheme.

A published name always holds whole contents: local files are written under a temporary name and renamed, object stores
replace an object in one request. Readers therefore never see a half-written file.
"""

import gzip
import json
import os
import uuid
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq


def resolve(uri: str) -> str:
    """Return an absolute local path, or the URI unchanged when it has a scheme."""
    return uri.rstrip("/") if "://" in uri else os.path.abspath(os.path.expanduser(uri))


def join(uri: str, *names: str) -> str:
    """Join a folder and names with single slashes."""
    return "/".join([uri.rstrip("/"), *names])


def exists(uri: str) -> bool:
    """Tell whether a file or folder is there."""
    filesystem, path = locate(uri)
    return bool(filesystem.get_file_info(path).type != pafs.FileType.NotFound)


def is_folder(uri: str) -> bool:
    """Tell whether a folder is there."""
    filesystem, path = locate(uri)
    return bool(filesystem.get_file_info(path).type == pafs.FileType.Directory)


def list_names(folder: str) -> list[str]:
    """Return the sorted names directly inside a folder; empty when the folder is absent."""
    filesystem, path = locate(folder)
    selector = pafs.FileSelector(path, allow_not_found=True)
    return sorted(info.base_name for info in filesystem.get_file_info(selector))


def read(uri: str, offset: int = 0, size: int | None = None) -> bytes:
    """Read a whole file, or `size` bytes from `offset`. Raises FileNotFoundError when it is absent."""
    filesystem, path = locate(uri)
    if filesystem is _LOCAL:  # a plain open is several times cheaper than going through Arrow
        with open(uri, "rb") as local:
            local.seek(offset)
            return local.read(-1 if size is None else size)
    with filesystem.open_input_file(path) as remote:
        return bytes(remote.read() if size is None else remote.read_at(size, offset))


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


def publish(uri: str, data: bytes) -> None:
    """Write a whole file; the name appears (or changes) only once all bytes are stored."""
    filesystem, path = locate(uri)
    if isinstance(filesystem, pafs.LocalFileSystem):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        temporary = f"{path}.{uuid.uuid4().hex}.tmp"
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    else:
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)


def publish_json(uri: str, value: Any) -> None:
    """Publish one JSON document, indented for people."""
    publish(uri, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def publish_table(uri: str, table: pa.Table) -> None:
    """Publish one Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    publish(uri, sink.getvalue().to_pybytes())


def plain(value: Any) -> Any:
    """Return a value as JSON would give it back: tuples become lists, keys become strings."""
    return json.loads(json.dumps(value))


def remove(uri: str) -> None:
    """Delete a file, or a folder and all in it; absent is fine."""
    filesystem, path = locate(uri)
    kind = filesystem.get_file_info(path).type
    if kind == pafs.FileType.Directory:
        filesystem.delete_dir(path)
    elif kind == pafs.FileType.File:
        filesystem.delete_file(path)


def locate(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the Arrow filesystem of a URI and the path inside it. Raises OSError when there is no such filesystem."""
    if "\0" in uri:
        raise OSError(f"{uri!r} has a null character")
    if "://" not in uri:
        return _LOCAL, uri
    scheme, _, path = uri.partition("://")
    bucket = path.partition("/")[0]
    return _filesystem(f"{scheme}://{bucket}"), path if scheme in ("s3", "gs") else path.removeprefix(bucket)


@lru_cache
def _filesystem(root: str) -> pafs.FileSystem:
    """Connect once to each bucket; keys are never parsed as URIs, so spaces and % in them are fine."""
    try:
        return pafs.FileSystem.from_uri(root + ("/" if root == "file://" else ""))[0]
    except pa.ArrowInvalid as error:
        raise OSError(f"{root}: {error}; use a local path, s3:// or gs://") from error


_LOCAL = pafs.LocalFileSystem()
