"""Results of a function in the order of its arguments, several computed ahead in threads: reading waits for the store."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(function: Callable[[Item], Made], items: Iterable[Item], workers: int) -> Iterator[Made]:
    """Yield what a function makes of items, in their order; at most `workers` results wait to be taken."""
    with ThreadPoolExecutor(workers) as pool:
        rest = iter(items)
        waiting = deque(pool.submit(function, item) for item in islice(rest, workers))
        while waiting:
            made = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
            yield made
