"""Errors of the steps of a Ray graph as rows, so that a command ends with their message.

Ray makes a traceback of an error that a step raises, and the message is lost in it. A row that stands for an error passes
the steps that follow.
"""

import pickle
from collections.abc import Callable
from functools import partial

import pyarrow as pa

from pipeline.errors import InputError, JobError
from pipeline.storage import fault_of

Step = Callable[[pa.Table], pa.Table]
FAILURE = "failure"  # column of a row that stands for an error: pickled


def task(step: Step) -> Step:
    """Return a step whose InputError or JobError comes out as a row, under its own name, by which Ray calls its tasks."""

    def guarded(table: pa.Table) -> pa.Table:
        return _guarded(step, table)

    function = step.func if isinstance(step, partial) else step
    guarded.__name__ = getattr(function, "__name__", type(function).__name__)
    return guarded


class GuardedActor:
    """An actor whose InputError or JobError comes out as a row, also that of its start."""

    def __init__(self, make: Callable[[], Step]) -> None:
        try:
            self.step = make()
        except (InputError, JobError) as error:
            self.step = partial(_raise, error)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return what the actor returns, or its error as a row."""
        return _guarded(self.step, table)


def error_of(table: pa.Table) -> InputError | JobError | None:
    """Return the error that a row of a graph stands for, None for any other row."""
    if FAILURE not in table.column_names:
        return None
    error: InputError | JobError = pickle.loads(table[FAILURE][0].as_py())  # noqa: S301  # of our own workers
    return error


def _raise(error: Exception, _: pa.Table) -> pa.Table:
    raise error


def _guarded(step: Step, table: pa.Table) -> pa.Table:
    if FAILURE in table.column_names:
        return table
    try:
        return step(table)
    except (InputError, JobError) as error:
        return _row(error)
    except OSError as error:  # of a disk that is full, a process without descriptors, ...
        if fault := fault_of(error, error.filename or "a file"):
            return _row(fault)
        raise


def _row(error: InputError | JobError) -> pa.Table:
    return pa.table({FAILURE: [pickle.dumps(error)]})
