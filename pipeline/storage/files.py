"""Open, list and publish files on local disk, s3://, gs:// and hf:// (to read). Nothing else knows a URI scheme.

A published name holds whole contents: local files are written under a temporary name and renamed, object stores replace an
object in one request. What a passing fault of a remote store breaks is tried again; an OSError means that it stayed broken.
"""

import gzip
import io
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipeline.storage import s3
from pipeline.storage.retrying import connect, open_patiently, patiently


def resolve(uri: str) -> str:
    """Return an absolute local path, or the URI unchanged when it has a scheme."""
    return uri.rstrip("/") if "://" in uri else os.path.abspath(os.path.expanduser(uri))


def join(uri: str, *names: str) -> str:
    """Join a folder and names with single slashes."""
    return "/".join([uri.rstrip("/"), *names])


def exists(uri: str) -> bool:
    """Tell whether a file or folder is there."""
    filesystem, path = locate(uri)
    return bool(patiently(filesystem.get_file_info, path).type != pafs.FileType.NotFound)


def stamps(uris: Sequence[str]) -> list[tuple[int, int]]:
    """Return the size and the time of change (ns) of files in one store, to tell whether they are those that were read."""
    if not uris:
        return []
    filesystem = locate(uris[0])[0]
    found = patiently(filesystem.get_file_info, [locate(uri)[1] for uri in uris])
    return [(int(info.size or 0), int(info.mtime_ns or 0)) for info in found]


def is_folder(uri: str) -> bool:
    """Tell whether a folder is there."""
    filesystem, path = locate(uri)
    return bool(patiently(filesystem.get_file_info, path).type == pafs.FileType.Directory)


def names(folder: str) -> Iterator[str]:
    """Yield the names directly inside a folder, in no order, without holding them; none when the folder is absent."""
    filesystem, path = locate(folder)
    if filesystem is _LOCAL:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as entries:
            yield from (entry.name for entry in entries)
    elif folder.startswith("s3://"):
        yield from s3.names(path)
    else:
        selector = pafs.FileSelector(path, allow_not_found=True)
        yield from (info.base_name for info in patiently(filesystem.get_file_info, selector))


def list_names(folder: str) -> list[str]:
    """Return the sorted names directly inside a folder; empty when the folder is absent."""
    return sorted(names(folder))


def read(uri: str, offset: int = 0, size: int | None = None, most: int | None = None) -> bytes:
    """Read a whole file, or `size` bytes from `offset`.

    Raises:
        FileNotFoundError: when it is absent.
        TooLarge: when the whole file has more than `most` bytes; nothing is read.
        OSError: when it cannot be read, or ends before `offset + size`.
    """
    filesystem, path = locate(uri)
    if filesystem is _LOCAL:  # a plain open is several times cheaper than going through Arrow
        with open(uri, "rb") as local:
            _check_size(uri, os.fstat(local.fileno()).st_size, most)
            local.seek(offset)
            data = local.read(-1 if size is None else size)
    else:
        data = patiently(_read_remote, filesystem, path, offset, size, most)
    if size is not None and len(data) < size:
        raise OSError(f"{uri} ends after {offset + len(data)} bytes, before {offset + size}")
    return data


def read_start(uri: str, size: int) -> bytes:
    """Read the first bytes of a file, `size` at most."""
    with open_stream(uri) as stream:
        return stream.read(size)


class TooLarge(Exception):
    """A file that is larger than its reader takes."""


def _read_remote(filesystem: pafs.FileSystem, path: str, offset: int, size: int | None, most: int | None) -> bytes:
    with filesystem.open_input_file(path) as remote:
        whole = remote.size()
        _check_size(path, whole, most)
        wanted = max(0, whole - offset if size is None else min(size, whole - offset))
        data = bytes(remote.read_at(wanted, offset)) if wanted else b""
        if len(data) < wanted:
            raise OSError(f"{path}: the answer broke off after {len(data)} of {wanted} bytes")
        return data


def _check_size(uri: str, size: int, most: int | None) -> None:
    if most is not None and size > most:
        raise TooLarge(f"{uri} has {size} bytes, at most {most} are read")


def check_writable(uri: str) -> None:
    """Raise OSError for a store that is only read, or that there is not; a disk's refusal comes with the writing."""
    if uri.startswith("hf://"):
        raise OSError("hf:// is read only; write to a local path, s3:// or gs://, and upload the finished folder")
    locate(uri)


@contextmanager
def open_stream(uri: str) -> Iterator[BinaryIO]:
    """Open a file to be read once, front to back."""
    filesystem, path = locate(uri)
    if filesystem is _LOCAL:
        with open(uri, "rb") as local:
            yield local
    else:
        with patiently(lambda: filesystem.open_input_stream(path, buffer_size=2**20)) as remote:
            yield remote


@contextmanager
def open_text(uri: str, errors: str = "strict") -> Iterator[TextIO]:
    """Open UTF-8 text as a stream, with or without a byte order mark; a name that ends in .gz is decompressed."""
    filesystem, path = locate(uri)
    with patiently(filesystem.open_input_file, path) as file:
        contents = gzip.GzipFile(fileobj=file) if uri.endswith(".gz") else file
        yield io.TextIOWrapper(contents, encoding="utf-8-sig", errors=errors, newline="")


def open_parquet(uri: str, pre_buffer: bool = False) -> pq.ParquetFile:
    """Open a Parquet file to read some of its row groups; close it, or use it in a `with`.

    With `pre_buffer` the columns of a row group come in one request: for groups that are read whole and are small.
    """
    filesystem, path = locate(uri)
    return pq.ParquetFile(path if filesystem is _LOCAL else open_patiently(filesystem, path), pre_buffer=pre_buffer)


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
    if filesystem is _LOCAL:
        with _temporary(path, data) as temporary:
            os.replace(temporary, path)
    elif uri.startswith("s3://"):
        s3.put(path, data)
    else:
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)


def create(uri: str, data: bytes) -> bool:
    """Write a whole file unless the name is taken; of several writers at once exactly one succeeds.

    On gs://, and on a disk without hard links, the look and the write are two steps: give a dataset there one driver
    at a time.

    Returns:
        Whether the file there now holds `data`.
    """
    filesystem, path = locate(uri)
    if uri.startswith("s3://"):
        return s3.create(path, data)
    if filesystem is _LOCAL:
        with _temporary(path, data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError:  # no hard links on this disk; what else is wrong stops `publish` as well
                pass
            else:
                return True
    if exists(uri):
        return False
    publish(uri, data)
    return True


def move(source: str, target: str) -> None:
    """Give a file another name in the same store; done already is fine, so that two may do it at once.

    Raises:
        FileNotFoundError: when neither name is there.
    """
    filesystem, path = locate(source)
    try:
        if source.startswith("s3://"):
            s3.copy(path, locate(target)[1])
            remove(source)
        else:
            filesystem.move(path, locate(target)[1])
    except FileNotFoundError:
        if not exists(target):
            raise


@contextmanager
def _temporary(path: str, data: bytes) -> Iterator[str]:
    """Hold the data on disk under a name of its own, in the folder where it is going to be."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        Path(temporary).unlink(missing_ok=True)


def publish_json(uri: str, value: Any) -> None:
    """Publish one JSON document."""
    publish(uri, json_bytes(value))


def publish_table(uri: str, table: pa.Table) -> None:
    """Publish one Parquet file."""
    publish(uri, table_bytes(table))


def json_bytes(value: Any) -> bytes:
    """Return a JSON document, indented for people."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def table_bytes(table: pa.Table) -> bytes:
    """Return a table as Parquet."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def plain(value: Any) -> Any:
    """Return a value as JSON would give it back: tuples become lists, keys become strings."""
    return json.loads(json.dumps(value))


def remove(uri: str) -> None:
    """Delete a file, or a folder and all in it; absent is fine."""
    filesystem, path = locate(uri)
    if uri.startswith("s3://"):
        s3.remove(path)
        return
    kind = patiently(filesystem.get_file_info, path).type
    with suppress(FileNotFoundError):  # someone else's removal is as good
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
    return connect(f"{scheme}://{bucket}"), path.removeprefix(bucket) if scheme == "file" else path


_LOCAL = pafs.LocalFileSystem()
