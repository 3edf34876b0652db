"""The clips of a dataset as one Arrow file on the local disk, which all processes of the machine map and share.

<temporary folder>/blat-ray-<user>/<sha256 of the file>.arrow    record batches of ROWS clips each, the last one shorter

The name is a hash of the content: processes that ask for one name get the same clips, on every machine. A file is written
once on each machine. The command that starts a run knows the name; the workers map the file, or write it from the dataset.
Files that no process has opened for a day are removed when another file is written; a process that has mapped one keeps it.
"""

import fcntl
import hashlib
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from pipeline.errors import JobError
from train.data.order import BLOCK

ROWS = 4096 * BLOCK  # of a record batch; whole blocks, so that neighbours lie in one batch
MAX_AGE_S = 86_400.0


def write(schema: pa.Schema, tables: Iterable[pa.Table]) -> str:
    """Write clips as they come, with the schema's metadata, and return the name of the file.

    Raises:
        JobError: when the disk does not take it.
    """
    temporary = _folder() / f"{uuid.uuid4().hex}.tmp"
    try:
        with _disk():
            file = pa.ipc.new_file(str(temporary), schema)
        for batch in _batches(schema, tables):  # an error here comes from reading the dataset
            with _disk():
                file.write_batch(batch)
        with _disk():
            file.close()
            with open(temporary, "rb") as written:
                name = hashlib.file_digest(written, "sha256").hexdigest()
            _remove_old()
            temporary.replace(path(name))
    finally:
        temporary.unlink(missing_ok=True)
    return name


def read(name: str) -> pa.Table | None:
    """Map a file into memory; None when this machine has none of this name."""
    try:
        os.utime(path(name))
        return pa.ipc.open_file(pa.memory_map(str(path(name)))).read_all()
    except FileNotFoundError:
        return None


def share(name: str, build: Callable[[], str]) -> pa.Table:
    """Map a file; where this machine has none, one process builds it and the others wait for that.

    Args:
        name: that `write` returned, on this machine or on another.
        build: writes the file from the dataset, and returns its name.

    Raises:
        JobError: when the file that is built has another name.
    """
    if (table := read(name)) is not None:
        return table
    with open(path(name).with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (table := read(name)) is not None:
            return table
        if (built := build()) != name:
            raise JobError(f"the clips differ from those that the command found (list {built[:12]}, not {name[:12]}): "
                           "the dataset has changed since; run the command again")  # fmt: skip
        table = read(name)
        assert table is not None
        return table


def batched(table: pa.Table) -> pa.Table:
    """Return a table in memory in batches as a file has them."""
    return pa.Table.from_batches(_batches(table.schema, [table]), table.schema)


def _batches(schema: pa.Schema, tables: Iterable[pa.Table]) -> Iterator[pa.RecordBatch]:
    pending, count = [schema.empty_table()], 0
    for table in tables:
        pending.append(table.cast(schema))
        count += len(table)
        if count >= ROWS:
            whole = pa.concat_tables(pending)
            for first in range(0, count - ROWS + 1, ROWS):
                yield _batch(whole.slice(first, ROWS))
            pending, count = [whole.slice(count - count % ROWS)], count % ROWS
    if count:
        yield _batch(pa.concat_tables(pending))


def _batch(table: pa.Table) -> pa.RecordBatch:
    """Copy a table into one batch: the bytes of a slice depend on the table that it was cut from."""
    (batch,) = table.combine_chunks().to_batches()
    return batch.take(pa.array(np.arange(len(table))))


def path(name: str) -> Path:
    """Return the path of a file on this machine; it need not exist."""
    return _folder() / f"{name}.arrow"


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"blat-ray-{os.getuid()}"
    with _disk():
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder, remedy = tempfile.gettempdir(), "TMPDIR chooses another folder"
        raise JobError(f"the list of clips cannot be written to {folder}: {error}; {remedy}") from None


def _remove_old() -> None:
    for found in _folder().iterdir():
        with suppress(FileNotFoundError):  # another process removes files, too
            if time.time() - found.stat().st_mtime > MAX_AGE_S:
                found.unlink()
