"""A batch size that follows the memory of a GPU."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")


class BatchSize:
    """How many rows a model takes at a time. It is halved when the GPU's memory is short, and stays so."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, count: int, one: Callable[[slice], Sequence[T]]) -> list[T]:
        """Return what `one` returns for rows 0 to `count`, a batch after the other.

        Raises:
            torch.OutOfMemoryError: when the memory does not suffice for one row.
        """
        import torch

        found: list[T] = []
        first = 0
        while first < count:
            chosen = slice(first, min(first + self.size, count))
            try:
                found += one(chosen)
                first = chosen.stop
            except torch.OutOfMemoryError:
                if self.size == 1:
                    raise
                self.size = max(1, min(self.size, chosen.stop - first) // 2)
                log.warning("caption: the GPU's memory is short; from here on %d clips at a time", self.size)
                torch.cuda.empty_cache()
        return found
