"""Arrow's filesystems of remote stores, and patience with them."""

import io
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

PAUSES_S = (0.1, 0.3, 1.0, 3.0, 6.0)  # between tries of a read; writes to S3 have boto3's own
FINAL = (  # words of errors that waiting does not mend, as Arrow and as boto3 write them
    "ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE", "NO_SUCH_BUCKET", "AccessDenied", "InvalidAccessKeyId",
    "SignatureDoesNotMatch", "NoSuchBucket", "Unable to locate credentials", "NotImplemented", "Got invalid",
)  # fmt: skip


def patiently(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call again, with growing pauses, what a passing fault of the network or the store broke."""
    for pause_s in PAUSES_S:
        try:
            return call(*arguments)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError):
            raise
        except OSError as error:
            if error.errno is not None or any(word in str(error) for word in FINAL):  # the disk's errors have numbers
                raise
        time.sleep(pause_s)
    return call(*arguments)


class _PatientFile(io.RawIOBase):
    def __init__(self, filesystem: pafs.FileSystem, path: str) -> None:
        self.file = patiently(filesystem.open_input_file, path)
        self.place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, place: int, whence: int = 0) -> int:
        self.place = place + (0, self.place, self.file.size())[whence]
        return self.place

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.file.size() - self.place)
        data: bytes = patiently(self._read_at, left if size < 0 else min(size, left))
        self.place += len(data)
        return data

    def _read_at(self, size: int) -> bytes:
        data: bytes = self.file.read_at(size, self.place)
        if len(data) < size:
            raise OSError(f"the answer broke off after {len(data)} of {size} bytes")
        return data


def open_patiently(filesystem: pafs.FileSystem, path: str) -> pa.NativeFile:
    """Open a remote file to read here and there; faults that pass are waited out, so that what fails is the file's own."""
    return pa.PythonFile(_PatientFile(filesystem, path), mode="r")


@lru_cache
def connect(root: str) -> pafs.FileSystem:
    """Connect once to each bucket; keys are never parsed as URIs, so spaces and % in them are fine."""
    if root.startswith("hf://"):
        from huggingface_hub import HfFileSystem  # read only here: nothing is published to a hub but by push_to_hub

        return pafs.PyFileSystem(pafs.FSSpecHandler(HfFileSystem()))
    try:
        return pafs.FileSystem.from_uri(root + ("/" if root == "file://" else ""))[0]
    except pa.ArrowInvalid as error:
        raise OSError(f"{root}: {error}; use a local path, s3://, gs:// or hf://") from error
