"""The error that a request ends with."""

from collections.abc import Mapping

from starlette.exceptions import HTTPException


class RequestError(HTTPException):
    """A request that cannot be answered. The client gets the status, and the message as `{"error": message}`."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, dict(headers or {}))
