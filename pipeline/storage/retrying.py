"""Repeat calls that a short fault of the network or of the store made fail; separate its faults from those of a file."""

import errno
from collections.abc import Callable
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from pipeline.errors import JobError

Result = TypeVar("Result")
PERMANENT_ERRORS = (  # parts of messages, as Arrow and as boto3 write them: the same call fails again
    "ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE", "NO_SUCH_BUCKET", "AccessDenied", "InvalidAccessKeyId",
    "SignatureDoesNotMatch", "NoSuchBucket", "Unable to locate credentials", "NotImplemented", "Got invalid",
)  # fmt: skip
PASSING_ANSWERS = (408, 425, 429)  # to a request that is right
HTTP_CLIENTS = ("httpx", "httpx2")  # of huggingface_hub; their errors are no OSError
OF_THE_FILE = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL,
}  # fmt: skip  # on a disk: the same file fails again


class StoreFault(JobError, OSError):
    """A store does not answer, refuses the credentials or breaks off; or a disk or this machine does (no descriptors left).

    It does not depend on the bytes of the file: the same command succeeds once the store is well.
    """


def fault_of(error: OSError, uri: str) -> StoreFault | None:
    """Return the fault of the store that keeps a file from being used; None where it is the file's own."""
    if not isinstance(error, StoreFault) and (error.errno is None or error.errno in OF_THE_FILE):
        return None
    return StoreFault(f"{uri} cannot be used now ({error}); nothing of it is kept: run the same command again")


def _is_own(error: OSError) -> bool:
    """Return whether an error is of the name that was asked for."""
    return isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError | PermissionError)


def _is_temporary(error: BaseException) -> bool:
    """Return whether the same call may succeed a little later."""
    if not isinstance(error, OSError) or _is_own(error):
        return False
    status = getattr(getattr(error, "response", None), "status_code", None)  # of an answer of the hub
    if status in range(400, 500) and status not in PASSING_ANSWERS:
        return False
    # Errors of the local disk carry an errno, those of remote stores do not.
    return error.errno is None and not any(text in str(error) for text in PERMANENT_ERRORS)


def _with_os_errors(function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    """Call a function; an error of an HTTP client becomes an OSError."""
    try:
        return function(*arguments, **options)
    except Exception as error:
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] not in HTTP_CLIENTS:
            raise
        raise OSError(f"{type(error).__name__}: {error}") from error


class _Retrying(Retrying):
    """Raises a StoreFault for what stays of the faults of a remote store."""

    def __call__(self, fn: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        try:
            return super().__call__(_with_os_errors, fn, *args, **kwargs)
        except OSError as error:
            if _is_own(error) or error.errno is not None or isinstance(error, StoreFault):
                raise
            raise StoreFault(str(error)) from error


with_retries = _Retrying(
    retry=retry_if_exception(_is_temporary),
    stop=stop_after_attempt(6),
    wait=wait_exponential_jitter(initial=0.1, exp_base=3, max=6, jitter=0.1),  # s; some ten seconds in all
    reraise=True,
)
"""`with_retries(function, *args)` returns what the function returns; of the last attempt's error see `StoreFault`.

The clients try again by themselves: Arrow's S3 asks 31 times in 6 s at each attempt, so that a fault of a minute passes.
"""
