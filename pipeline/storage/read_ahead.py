"""Compute the results of a function ahead of their use, in threads: while one is used, others wait for the store."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result, None, None]:
    """Yield the result of a function for each item, in the order of the items; at most `workers` results wait."""
    pool = ThreadPoolExecutor(workers)
    try:
        rest = iter(items)
        futures = deque(pool.submit(function, item) for item in islice(rest, workers))
        while futures:
            result = futures.popleft().result()
            futures.extend(pool.submit(function, item) for item in islice(rest, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)  # waits for running calls: after an error or Ctrl-C no thread goes on
