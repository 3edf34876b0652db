"""Units of datasets -> rows of the table: what is there stays, what changed is replaced, what has gone is removed.

Vectors are made once: a clip whose audio is the same keeps its vector when its captions change. Each unit is one commit.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from eval.embedding.actor import LOCATION_COLUMNS
from eval.embedding.in_process import finite
from eval.search import index
from eval.search.index import IndexedDataset
from eval.search.units import Dataset, Row, Unit
from pipeline.progress import Progress

Embed = Callable[[pa.Table], Iterator[pa.Table]]  # LOCATION_COLUMNS -> rows of `actor.SCHEMA`, in any order
Name = tuple[str, str]  # of a unit: dataset, unit


class Vector(NamedTuple):
    """What a clip's audio gave."""

    vector: np.ndarray  # (D,) float32, unit length
    duration_s: float


@dataclass
class Pending:
    """A unit whose vectors are being made."""

    unit: Unit
    vectors: dict[str, Vector]  # by id
    left: int  # clips of which neither a vector nor a reason has come


class Todo(NamedTuple):
    """A unit that the table lacks, or has with other rows."""

    dataset: Dataset
    name: str
    clips: int


@dataclass
class Listed:
    """What the datasets hold, and what the table lacks of it."""

    todo: list[Todo] = field(default_factory=list)
    gone: set[Name] = field(default_factory=set)
    held: set[str] = field(default_factory=set)  # datasets of which the table has rows
    hashes: list[str] = field(default_factory=list)  # of the datasets, in their order
    clips: list[int] = field(default_factory=list)


def compare(table: Any, datasets: Sequence[Dataset]) -> Listed:
    """List the datasets and compare them with the table. Of each unit only its name is kept."""
    held, found = _marks(table), Listed()
    seen: set[Name] = set()
    for dataset in datasets:
        digest, clips = hashlib.sha256(), 0
        for unit in dataset.units():
            name = (unit.data, unit.name)
            seen.add(name)
            digest.update(f"{unit.name} {unit.mark}\n".encode())
            clips += len(unit.rows)
            if held.get(name) != {unit.mark: len(unit.rows)}:  # also where clips could not be read the last time
                found.todo.append(Todo(dataset, unit.name, len(unit.rows)))
        found.hashes.append(digest.hexdigest())
        found.clips.append(clips)
    found.gone, found.held = set(held) - seen, {data for data, _ in held}
    return found


def fill(table: Any, listed: Listed, embed: Embed, group_clips: int) -> None:
    """Bring the rows of the table up to the datasets.

    Args:
        table: of `index.open_table`.
        listed: of `compare`.
        embed: makes vectors.
        group_clips: clips that are embedded in one pass, and whose rows are in memory at a time; at least one unit is.
    """
    for data, name in sorted(listed.gone):
        table.delete(_where(data, name))
    progress = Progress("index-search", "clips", sum(each.clips for each in listed.todo))
    for group in _groups(listed.todo, group_clips):
        units = [each.dataset.read(each.name) for each in group]
        known = [_known(table, unit) if unit.data in listed.held else {} for unit in units]
        for done in _complete(units, known, embed):
            _write(table, done)
            progress.add(len(done.unit.rows))


def describe(table: Any, datasets: Sequence[Dataset], listed: Listed) -> tuple[IndexedDataset, ...]:
    """Return the entries of index.json."""
    return tuple(
        IndexedDataset(
            uri=dataset.uri,
            name=dataset.uri.rpartition("/")[2],
            captions=dataset.captions,
            clips=(clips := table.count_rows(f"data = {index.quoted(dataset.uri)}")),
            missing=total - clips,
            hash=digest,
        )
        for dataset, total, digest in zip(datasets, listed.clips, listed.hashes, strict=True)
    )


def _marks(table: Any) -> dict[Name, dict[str, int]]:
    """Return the rows of each mark of each unit: one mark, where no other process has written the unit since."""
    found: dict[Name, dict[str, int]] = {}
    for batch in table.search().select(["data", "unit", "mark"]).to_batches(8192):
        counted = pa.Table.from_batches([batch]).group_by(["data", "unit", "mark"]).aggregate([([], "count_all")])
        for row in counted.to_pylist():
            marks = found.setdefault((row["data"], row["unit"]), {})
            marks[row["mark"]] = marks.get(row["mark"], 0) + row["count_all"]
    return found


def _groups(todo: Iterable[Todo], clips: int) -> Iterator[list[Todo]]:
    group: list[Todo] = []
    for each in todo:
        group.append(each)
        if sum(own.clips for own in group) >= clips:
            yield group
            group = []
    if group:
        yield group


def _complete(units: Sequence[Unit], known: Sequence[dict[str, Vector]], embed: Embed) -> Iterator[Pending]:
    """Yield units with the vectors of their clips, given those that are known, each as soon as its last one has come."""
    pending: dict[str, Pending] = {}  # by the id of each clip without a vector
    wanted: list[tuple[str, Row]] = []
    for unit, vectors in zip(units, known, strict=True):
        own = Pending(unit, vectors, len(unit.rows) - len(vectors))
        lacking = [(row_id, row) for row in unit.rows if (row_id := row.id(unit.data)) not in vectors]
        pending |= dict.fromkeys((row_id for row_id, _ in lacking), own)
        wanted += lacking
        if not own.left:
            yield own
    if not wanted:
        return
    columns = [[row_id for row_id, _ in wanted], *zip(*(row.location for _, row in wanted), strict=True)]
    for batch in embed(pa.table(dict(zip(LOCATION_COLUMNS, map(list, columns), strict=True)))):
        for row_id, vector, duration_s in zip(*(batch[name] for name in ("id", "outputs", "duration_s")), strict=True):
            own = pending.pop(row_id.as_py())
            own.left -= 1
            if len(vector):
                own.vectors[row_id.as_py()] = Vector(finite(vector.values.to_numpy()), duration_s.as_py())
            if not own.left:
                yield own


def _known(table: Any, unit: Unit) -> dict[str, Vector]:
    """Return by id the vectors in the table of clips whose audio is the same."""
    audio = {row.id(unit.data): row.audio for row in unit.rows}
    where = f"id IN ({', '.join(map(index.quoted, audio))})"
    rows = table.search().where(where).select(["id", "audio", "vector", "duration_s"]).limit(len(audio)).to_arrow()
    return {
        row_id: Vector(np.array(vector, np.float32), duration_s)
        for row_id, held, vector, duration_s in zip(*(rows[n].to_pylist() for n in rows.column_names), strict=True)
        if audio[row_id] == held
    }


def _write(table: Any, done: Pending) -> None:
    """Replace the rows of a unit in one commit; two writers at once leave one row of each clip."""
    unit, where = done.unit, _where(done.unit.data, done.unit.name)
    rows = [row for row in unit.rows if row.id(unit.data) in done.vectors]
    if not rows:
        table.delete(where)
        return
    merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
    merge.when_not_matched_by_source_delete(where).execute(_table(table.schema, unit, rows, done.vectors))


def _table(schema: pa.Schema, unit: Unit, rows: Sequence[Row], vectors: dict[str, Vector]) -> pa.Table:
    ids = [row.id(unit.data) for row in rows]
    flat = np.concatenate([vectors[row_id].vector for row_id in ids])
    columns = {
        "id": ids,
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), len(flat) // len(ids)),
        "duration_s": [row.duration_s or vectors[row_id].duration_s for row, row_id in zip(rows, ids, strict=True)],
        **{name: [list(getattr(row, name)) for row in rows] for name in ("captions", "tags")},
        **{name: [getattr(row, name) for row in rows] for name in ("key", "source_id", "audio")},
        **{name: [value] * len(ids) for name, value in (("data", unit.data), ("unit", unit.name), ("mark", unit.mark))},
        **{name: [getattr(row.location, name) for row in rows] for name in LOCATION_COLUMNS[1:] if name != "fault"},
    }
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _where(data: str, unit: str) -> str:
    return f"data = {index.quoted(data)} AND unit = {index.quoted(unit)}"
