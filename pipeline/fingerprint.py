"""PLACEHOLDER by the lead: the helper who writes this module overwrites it whole."""

from typing import Any


def fingerprint(samples: Any, sample_rate_hz: int) -> Any: ...


class Index:
    def __init__(self, known: Any) -> None: ...
    def find(self, words: Any) -> Any: ...
