"""Results of a function in the order of its arguments, several computed ahead in threads: reading waits for the store."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(function: Callable[[Item], Made], items: Iterable[Item], workers: int) -> Generator[Made, None, None]:
    """Yield what a function makes of items, in their order; at most `workers` results wait to be taken."""
    pool = ThreadPoolExecutor(workers)
    try:
        rest = iter(items)
        waiting = deque(pool.submit(function, item) for item in islice(rest, workers))
        while waiting:
            made = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
            yield made
    finally:
        pool.shutdown(cancel_futures=True)  # waits for what is being made: after an error or Ctrl-C no thread goes on
