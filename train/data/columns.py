"""Values of clips by number, straight from Arrow memory: a Python object is made when one is asked for, and not before.

Rows are indexed from 0; a column can lie in a file that the processes of a machine share (train/data/clip_file.py).
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

ITERATED = 65_536  # rows that become Python objects at a time

Value = TypeVar("Value")


class Values(Sequence[Value]):
    """Something of every clip."""

    @abstractmethod
    def value(self, row: int) -> Value:
        """Return that of one clip."""

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self.value(row) for row in range(len(self))[index]]
        return self.value(range(len(self))[index])


class Column(Values[Value]):
    """A column of a table."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __iter__(self) -> Iterator[Value]:
        for first in range(0, len(self.column), ITERATED):
            for chunk in self.column.slice(first, ITERATED).chunks:
                yield from _objects(chunk)

    def value(self, row: int) -> Value:
        """Return the value of one row."""
        found: Value = self.column[row].as_py()
        return found


class Picked(Values[Value]):
    """Some rows of others, in an order of their own."""

    def __init__(self, values: Sequence[Value], rows: np.ndarray) -> None:
        self.values, self.rows = values, rows

    def __len__(self) -> int:
        return len(self.rows)

    def value(self, row: int) -> Value:
        """Return the value of the row that is picked in this place."""
        return self.values[int(self.rows[row])]


class Joined(Values[Value]):
    """Several one after the other."""

    def __init__(self, parts: Sequence[Sequence[Value]], starts: np.ndarray) -> None:
        """Take the parts, and the number of the first row of each, ending with the number of all rows."""
        self.parts, self.starts = parts, starts

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __iter__(self) -> Iterator[Value]:
        return (value for part in self.parts for value in part)

    def value(self, row: int) -> Value:
        """Return the value of a row of the whole."""
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.parts[part][row - int(self.starts[part])]


def _objects(array: pa.Array) -> list[Any]:
    """Return an array as Python objects, some times faster than Arrow does it."""
    if array.null_count or not (pa.types.is_list(array.type) or pa.types.is_string(array.type)):
        return list(array.to_pylist())
    if pa.types.is_string(array.type):
        return list(array.to_numpy(zero_copy_only=False))
    values, ends = _objects(array.flatten()), np.cumsum([0, *array.value_lengths().to_numpy()]).tolist()
    return [values[first:last] for first, last in pairwise(ends)]
