"""Arrow's filesystems of remote stores, and patience with them."""

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
