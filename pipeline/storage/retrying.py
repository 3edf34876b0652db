"""Repeat calls that a short fault of the network or of the store made fail."""

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

PERMANENT_ERRORS = (  # parts of messages, as Arrow and as boto3 write them: the same call fails again
    "ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE", "NO_SUCH_BUCKET", "AccessDenied", "InvalidAccessKeyId",
    "SignatureDoesNotMatch", "NoSuchBucket", "Unable to locate credentials", "NotImplemented", "Got invalid",
)  # fmt: skip


def _is_temporary(error: BaseException) -> bool:
    """Return whether the same call may succeed a little later."""
    if not isinstance(error, OSError):
        return False
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError | PermissionError):
        return False
    # Errors of the local disk carry an errno, those of remote stores do not.
    return error.errno is None and not any(text in str(error) for text in PERMANENT_ERRORS)


with_retries = Retrying(
    retry=retry_if_exception(_is_temporary),
    stop=stop_after_attempt(6),
    wait=wait_exponential_jitter(initial=0.1, exp_base=3, max=6, jitter=0.1),  # s; some ten seconds in all
    reraise=True,
)
"""`with_retries(function, *args)` returns what the function returns; the last attempt's error is raised."""
