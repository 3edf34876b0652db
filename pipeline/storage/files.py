"""List, read and publish whole files on local disk, s3://, gs:// and hf:// (hf:// for reading only)."""

import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import pyarrow.fs as pafs

from pipeline.storage import s3
from pipeline.storage.arrow import LOCAL, check_size, locate, open_blocks, read_range
from pipeline.storage.retrying import with_retries

Buffer = bytes | memoryview
BLOCK_BYTES = 64 * 2**10  # of a remote file: a smaller piece takes as long
STREAM_BYTES = 2**20  # of a remote file that is read from its beginning


def resolve(uri: str) -> str:
    """Return an absolute local path, or the URI unchanged when it has a scheme."""
    return uri.rstrip("/") if "://" in uri else os.path.abspath(os.path.expanduser(uri))


def join(uri: str, *names: str) -> str:
    """Join a folder and names with single slashes."""
    return "/".join([uri.rstrip("/"), *names])


def exists(uri: str) -> bool:
    """Return whether a file or folder exists."""
    filesystem, path = locate(uri)
    return bool(with_retries(filesystem.get_file_info, path).type != pafs.FileType.NotFound)


def stamps(uris: Sequence[str]) -> list[tuple[int, int]]:
    """Return the size and the modification time (ns) of files in one store.

    Equal stamps mean that a file has not changed since it was read.
    """
    if not uris:
        return []
    filesystem = locate(uris[0])[0]
    found = with_retries(filesystem.get_file_info, [locate(uri)[1] for uri in uris])
    return [(int(info.size or 0), int(info.mtime_ns or 0)) for info in found]


def is_folder(uri: str) -> bool:
    """Return whether a folder exists."""
    filesystem, path = locate(uri)
    return bool(with_retries(filesystem.get_file_info, path).type == pafs.FileType.Directory)


def names(folder: str) -> Iterator[str]:
    """Yield the names directly inside a folder, in no order and without collecting them. A missing folder is empty."""
    filesystem, path = locate(folder)
    if filesystem is LOCAL:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as entries:
            yield from (entry.name for entry in entries)
    elif folder.startswith("s3://"):
        yield from s3.names(path)
    else:
        selector = pafs.FileSelector(path, allow_not_found=True)
        yield from (info.base_name for info in with_retries(filesystem.get_file_info, selector))


def list_names(folder: str) -> list[str]:
    """Return the sorted names directly inside a folder. A missing folder is empty."""
    return sorted(names(folder))


def file_sizes(folder: str) -> Iterator[tuple[str, int]]:
    """Yield the name and the bytes of each file directly inside a folder, in no order. A missing folder is empty."""
    filesystem, path = locate(folder)
    if filesystem is LOCAL:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # deleted since it was listed
                    if entry.is_file():
                        yield entry.name, entry.stat().st_size
    elif folder.startswith("s3://"):
        yield from s3.file_sizes(path)
    else:
        found = with_retries(filesystem.get_file_info, pafs.FileSelector(path, allow_not_found=True))
        yield from ((info.base_name, info.size) for info in found if info.type == pafs.FileType.File)


def read(uri: str, offset: int = 0, size: int | None = None, max_bytes: int | None = None) -> bytes:
    """Read a whole file, or `size` bytes from `offset`.

    Raises:
        FileNotFoundError: when the file does not exist.
        TooLarge: when the whole file has more than `max_bytes` bytes; nothing is read.
        OSError: when the file cannot be read, or ends before `offset + size`.
    """
    filesystem, path = locate(uri)
    if filesystem is LOCAL:  # a plain open is several times cheaper than going through Arrow
        with open(path, "rb") as local:
            check_size(uri, os.fstat(local.fileno()).st_size, max_bytes)
            local.seek(offset)
            data = local.read(-1 if size is None else size)
    else:
        data = with_retries(read_range, filesystem, path, offset, size, max_bytes)
    if size is not None and len(data) < size:
        raise OSError(f"{uri} ends after {offset + len(data)} bytes, before {offset + size}")
    return data


def read_start(uri: str, size: int) -> bytes:
    """Read the first bytes of a file, `size` at most."""
    with open_stream(uri) as stream:
        return stream.read(size)


def check_writable(uri: str) -> None:
    """Raise OSError for a store that is unknown or read only. The permissions of a disk are not checked."""
    if uri.startswith("hf://"):
        raise OSError("hf:// is read only; write to a local path, s3:// or gs://, and upload the finished folder")
    locate(uri)


@contextmanager
def open_stream(uri: str) -> Iterator[BinaryIO]:
    """Open a file to read it once, from the beginning to the end."""
    filesystem, path = locate(uri)
    if filesystem is LOCAL:
        with open(path, "rb") as local:
            yield local
    else:
        with open_blocks(filesystem, path, STREAM_BYTES) as remote:
            yield remote


def open_seekable(uri: str) -> BinaryIO:
    """Open a file to read pieces of it, in any order. The caller closes it."""
    filesystem, path = locate(uri)
    return open(path, "rb") if filesystem is LOCAL else open_blocks(filesystem, path, BLOCK_BYTES)


def publish(uri: str, *parts: Buffer) -> None:
    """Write a whole file of one or more parts; the name appears (or changes) only once all bytes are stored."""
    filesystem, path = locate(uri)
    if filesystem is LOCAL:
        with _temporary(path, parts) as temporary:
            os.replace(temporary, path)
    else:
        _store(uri, parts)


def write_temporary(uri: str, parts: Iterable[Buffer]) -> None:
    """Write a file that nobody reads before this returns, and that is not needed after a crash.

    The parts are not held in memory, except on their way to gs://.
    """
    filesystem, path = locate(uri)
    if uri.startswith("s3://"):
        with tempfile.NamedTemporaryFile() as spool:  # parts may come one by one, and be more than memory holds
            spool.writelines(parts)
            spool.flush()
            s3.put_file(path, spool.name)
        return
    if filesystem is not LOCAL:
        _store(uri, parts)
        return
    try:
        file = open(path, "wb")  # noqa: SIM115
    except FileNotFoundError:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "wb")  # noqa: SIM115
    with file:
        file.writelines(parts)


def _store(uri: str, parts: Iterable[Buffer]) -> None:
    filesystem, path = locate(uri)
    data = b"".join(parts)
    if uri.startswith("s3://"):
        s3.put(path, data)
    else:
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)


def create(uri: str, data: bytes) -> bool:
    """Write a whole file unless the name is taken. When several writers do so at once, exactly one succeeds.

    On gs://, and on a disk without hard links, the check and the write are two steps. A dataset there must have one
    driver at a time.

    Returns:
        Whether the file there now holds `data`.
    """
    filesystem, path = locate(uri)
    if uri.startswith("s3://"):
        return s3.create(path, data)
    if filesystem is LOCAL:
        with _temporary(path, [data]) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError:  # a disk without hard links; any other fault makes `publish` fail as well
                pass
            else:
                return True
    if exists(uri):
        return False
    publish(uri, data)
    return True


def move(source: str, target: str) -> None:
    """Give a file another name in the same store.

    Two processes may do it at once: a file that already has its new name is no error.

    Raises:
        FileNotFoundError: when neither name exists.
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


def remove(uri: str) -> None:
    """Delete a file, or a folder and everything in it. A name that does not exist is no error."""
    filesystem, path = locate(uri)
    if uri.startswith("s3://"):
        s3.remove(path)
        return
    kind = with_retries(filesystem.get_file_info, path).type
    with suppress(FileNotFoundError):  # another process deleted it first
        if kind == pafs.FileType.Directory:
            filesystem.delete_dir(path)
        elif kind == pafs.FileType.File:
            filesystem.delete_file(path)


@contextmanager
def _temporary(path: str, parts: Iterable[Buffer]) -> Iterator[str]:
    """Write the parts to a temporary file in its final folder; the file is deleted at the end."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        Path(temporary).unlink(missing_ok=True)
