"""Arrow's filesystems: the local disk, and how files of remote stores are read."""

import io
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from pipeline.storage.retrying import with_retries

LOCAL = pafs.LocalFileSystem()


def locate(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the filesystem of a URI and the path inside it.

    Raises:
        OSError: when there is no such filesystem.
    """
    if "\0" in uri:
        raise OSError(f"{uri!r} has a null character")
    if "://" not in uri:
        return LOCAL, uri
    scheme, _, path = uri.partition("://")
    if scheme == "file":
        return LOCAL, path
    return connect(f"{scheme}://{path.partition('/')[0]}"), path


@lru_cache
def connect(root: str) -> pafs.FileSystem:
    """Connect once to each bucket; keys are never parsed as URIs, so they may hold spaces and %."""
    if root.startswith("hf://"):
        from huggingface_hub import HfFileSystem  # for reading only; push_to_hub is what publishes to a hub

        return pafs.PyFileSystem(pafs.FSSpecHandler(HfFileSystem()))
    try:
        return pafs.FileSystem.from_uri(root)[0]
    except pa.ArrowInvalid as error:
        raise OSError(f"{root}: {error}; use a local path, s3://, gs:// or hf://") from error


def open_random_access(filesystem: pafs.FileSystem, path: str) -> pa.NativeFile:
    """Open a remote file for Arrow to read ranges of it; reads are retried, and what stays of a fault is a StoreFault."""
    return pa.PythonFile(_RetryingFile(filesystem, path), mode="r")


def open_blocks(filesystem: pafs.FileSystem, path: str, block_bytes: int) -> io.BufferedReader:
    """Open a remote file to read small pieces of it, of which a block is read at a time; reads are retried."""
    return io.BufferedReader(_RetryingFile(filesystem, path), block_bytes)


def read_range(filesystem: pafs.FileSystem, path: str, offset: int, size: int | None, max_bytes: int | None) -> bytes:
    """Read a remote file as `files.read` does; a range that goes beyond the end of the file comes back shorter."""
    with filesystem.open_input_file(path) as file:
        file_size: int = file.size()
        check_size(path, file_size, max_bytes)
        rest = max(0, file_size - offset)
        return read_at(file, path, offset, rest if size is None else min(size, rest))


def read_at(file: pa.NativeFile, path: str, offset: int, size: int) -> bytes:
    """Read exactly `size` bytes that the file is known to have."""
    data: bytes = file.read_at(size, offset) if size else b""
    if len(data) < size:
        raise OSError(f"{path}: the connection closed after {len(data)} of {size} bytes")
    return data


class TooLarge(Exception):
    """A file is larger than its reader accepts."""


def check_size(uri: str, size: int, max_bytes: int | None) -> None:
    """Raise TooLarge when a file has more than `max_bytes` bytes."""
    if max_bytes is not None and size > max_bytes:
        raise TooLarge(f"{uri} has {size} bytes, at most {max_bytes} are read")


class _RetryingFile(io.RawIOBase):
    """A remote file whose single reads are retried."""

    def __init__(self, filesystem: pafs.FileSystem, path: str) -> None:
        self.path = path
        self.file = with_retries(filesystem.open_input_file, path)
        self.offset = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.offset

    def seek(self, offset: int, whence: int = 0) -> int:
        self.offset = offset + (0, self.offset, self.file.size())[whence]
        return self.offset

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        rest = max(0, self.file.size() - self.offset)
        data = with_retries(read_at, self.file, self.path, self.offset, rest if size < 0 else min(size, rest))
        self.offset += len(data)
        return data
