"""Values of clips by number, read from Arrow memory: a Python object exists only for the value that is asked for.

Rows are indexed from 0. A column can be part of a file that the processes of a machine share (train/data/clip_file.py).
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.integer[Any]]
ITERATED = 65_536  # rows that become Python objects at a time

Value = TypeVar("Value")


class Values(Sequence[Value]):
    """One value of every clip, such as its key."""

    @abstractmethod
    def value(self, row: int) -> Value:
        """Return the value of one clip."""

    @overload
    def __getitem__(self, index: int) -> Value: ...
    @overload
    def __getitem__(self, index: slice) -> list[Value]: ...
    def __getitem__(self, index: int | slice) -> Value | list[Value]:
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


class Absent(Values[None]):
    """A column that a table lacks: every value is None."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def value(self, row: int) -> None:
        """Return None."""


class Picked(Values[Value]):
    """Some rows of a sequence, in any order."""

    def __init__(self, values: Sequence[Value], rows: Ints) -> None:
        self.values, self.rows = values, rows

    def __len__(self) -> int:
        return len(self.rows)

    def value(self, row: int) -> Value:
        """Return the value of the picked row with this number."""
        return self.values[int(self.rows[row])]


class Joined(Values[Value]):
    """Several sequences, one after the other."""

    def __init__(self, sequences: Sequence[Sequence[Value]], starts: Ints) -> None:
        """Take the sequences, and the number of the first row of each, ending with the number of all rows."""
        self.sequences, self.starts = sequences, starts

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __iter__(self) -> Iterator[Value]:
        return (value for sequence in self.sequences for value in sequence)

    def value(self, row: int) -> Value:
        """Return the value of a row of the whole."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.sequences[number][row - int(self.starts[number])]


def _objects(array: pa.Array) -> list[Any]:
    """Return an array as Python objects, several times faster than Arrow's `to_pylist`."""
    if array.null_count or not (pa.types.is_list(array.type) or pa.types.is_string(array.type)):
        return list(array.to_pylist())
    if pa.types.is_string(array.type):
        return list(array.to_numpy(zero_copy_only=False))
    values, ends = _objects(array.flatten()), np.cumsum([0, *array.value_lengths().to_numpy()]).tolist()
    return [values[first:last] for first, last in pairwise(ends)]
