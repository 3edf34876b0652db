"""The search index on synthetic clips: recall of the approximate index, seconds to build, milliseconds of a query, memory.

A part of `make bench`. One number of clips alone, as a process of its own: `python -m tests.bench.search CLIPS FOLDER`.
Vectors vary in INTRINSIC directions without clusters, and in the others by some noise, which is harder for an index of
partitions than the vectors of sounds, which have clusters. Queries are drawn in the same way and moved by a constant, as
texts lie apart from sounds in models that are trained by contrast.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from eval.search import Query, index
from tests.bench import inputs
from tests.bench.ratio import Row, Spread
from tests.bench.sizes import Sizes

DIM, INTRINSIC, K, QUERIES = 128, 24, 10, 200
NOISE = 0.2  # length, beside vectors of length 1
LABELS = 527
BATCH = 50_000  # rows that are written at a time
MIN_RECALL = 0.95
WORDS = 500
FILTERS = {0.0001: "Rare", 0.01: "Some", 0.02: "Few", 0.5: "Half"}  # share of the clips -> the tag that they have


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of one number of clips."""

    clips: int
    write_s: float
    index_s: float
    """Of all indexes: vectors, captions, tags, ids."""
    build_mb: float
    """Peak of memory while it was written and indexed, beyond the imports."""
    query_mb: float
    """The same of queries, in a process that only opens the index."""
    recall: float
    """Share of the K nearest that the approximate index returns."""
    exact_ms: tuple[float, float]
    """Of a query that compares all vectors: median and 99th percentile."""
    approximate_ms: tuple[float, float]
    filtered_ms: dict[str, tuple[float, float]]
    """With a tag of FILTERS, by the share of the clips that have it; exact where these are few."""
    without_ms: tuple[float, float]
    """Without a tag that 2 % of the clips have."""
    words_ms: tuple[float, float]


class Source:
    """Synthetic clips."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.directions = _unit(self.rng.standard_normal((INTRINSIC, DIM), dtype=np.float32))
        self.gap = _unit(self.rng.standard_normal((1, DIM), dtype=np.float32))

    def vectors(self, count: int) -> np.ndarray:
        """Return unit vectors (count, DIM)."""
        strengths = self.rng.standard_normal((count, INTRINSIC), dtype=np.float32)
        noise = _unit(self.rng.standard_normal((count, DIM), dtype=np.float32))
        return _unit(_unit(strengths @ self.directions) + NOISE * noise)

    def queries(self) -> np.ndarray:
        """Return unit vectors (QUERIES, DIM)."""
        return _unit(self.vectors(QUERIES) + self.gap)

    def tags(self, label: int, row: int) -> list[str]:
        """Return the tags of a clip."""
        return [
            f"Label {label}",
            f"Kind {label % 50}",
            *(tag for each, tag in FILTERS.items() if row % (1 / each) == 0),
        ]

    def rows(self, first: int, count: int) -> pa.Table:
        """Return rows of the table."""
        labels = self.rng.integers(LABELS, size=count)
        words = self.rng.integers(WORDS, size=(count, 8))
        columns: dict[str, Any] = {
            "id": [f"{number:024x}" for number in range(first, first + count)],
            "vector": pa.FixedSizeListArray.from_arrays(self.vectors(count).ravel(), DIM),
            "key": [f"clip{number}" for number in range(first, first + count)],
            "captions": [[" ".join(f"word{word}" for word in row)] for row in words],
            "tags": [self.tags(label, first + row) for row, label in enumerate(labels)],
        }
        empty: dict[pa.DataType, Any] = {pa.string(): "", pa.float64(): 0.0, pa.int64(): 0}
        schema = index.schema(DIM)
        filled = {field.name: columns.get(field.name, [empty.get(field.type)] * count) for field in schema}
        return pa.table(filled, schema=schema)


def build(folder: str, clips: int) -> dict[str, float]:
    """Write an index of so many clips; return seconds and megabytes."""
    index.connect(folder)  # imports LanceDB
    before, source, started = _kilobytes("VmRSS"), Source(), time.perf_counter()
    table = index.open_table(folder, dim=DIM)
    for first in range(0, clips, BATCH):
        table.add(source.rows(first, min(BATCH, clips - first)))
    written = time.perf_counter()
    index.optimize(table, threshold=1)
    done = time.perf_counter()
    megabytes = (_kilobytes("VmHWM") - before) / 1e3
    return {"write_s": written - started, "index_s": done - written, "build_mb": megabytes}


def ask(folder: str) -> dict[str, Any]:
    """Query an index; return recall, milliseconds and megabytes."""
    index.connect(folder)
    before, table = _kilobytes("VmRSS"), index.open_table(folder)
    queries = Source().queries()
    near = [lambda q=q: index.nearest(table.search(q, vector_column_name="vector")) for q in queries]
    exact, exact_ms = _timed([lambda n=n: n().bypass_vector_index() for n in near])
    found, approximate_ms = _timed(near)
    narrow = [lambda where, n=n: index.narrow(table, n(), where) for n in near]  # as `Searcher.search` does it
    filtered_ms = {
        str(share): _timed([lambda n=n, t=t: n(Query(tags=(t,)).where) for n in narrow])[1]
        for share, t in FILTERS.items()
    }
    _, without_ms = _timed([lambda n=n: n(Query(without_tags=(FILTERS[0.02],)).where) for n in narrow])
    words = [f"word{i % WORDS} word{7 * i % WORDS}" for i in range(QUERIES)]
    _, words_ms = _timed([lambda w=w: table.search(w, query_type="fts", fts_columns="captions") for w in words])
    recall = float(np.mean([len(a & b) / len(a) for a, b in zip(exact, found, strict=True)]))
    megabytes = (_kilobytes("VmHWM") - before) / 1e3
    return {
        "recall": recall, "exact_ms": exact_ms, "approximate_ms": approximate_ms, "filtered_ms": filtered_ms,
        "without_ms": without_ms,
        "words_ms": words_ms, "query_mb": megabytes,
    }  # fmt: skip


def measure(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield the recall of the approximate index against exact search."""
    found = measure_one(folder / "search", sizes.indexed)
    yield Row(
        what=f"recall at {K} of the approximate index, {found.clips:,} clips",
        ours=f"built in {found.write_s + found.index_s:.1f} s; approximate {_both(found.approximate_ms)}, with a tag "
        f"{_both(found.filtered_ms['0.02'])}, words {_both(found.words_ms)} (median, 99th percentile)",
        peer=f"exact {_both(found.exact_ms)}",
        found=Spread.of([found.recall]),
        at_least=MIN_RECALL,
    )


def measure_one(folder: Path, clips: int) -> Measured:
    """Measure one number of clips: a process that builds, and one that asks."""
    parts = [
        json.loads(inputs.run(inputs.stage("tests.bench.search", *words)).splitlines()[-1])
        for words in (("build", str(folder), str(clips)), ("ask", str(folder)))
    ]
    return Measured(clips=clips, **parts[0], **parts[1])


def _timed(queries: list[Callable[[], Any]]) -> tuple[list[set[str]], tuple[float, float]]:
    """Return the ids that queries find, with the median and the 99th percentile of their milliseconds."""
    queries[0]().select(["id"]).limit(K).to_list()  # opens what stays open
    found, milliseconds = [], []
    for query in queries:
        started = time.perf_counter()
        rows = query().select(["id"]).limit(K).to_list()
        milliseconds.append(1e3 * (time.perf_counter() - started))
        found.append({row["id"] for row in rows})
    return found, (float(np.median(milliseconds)), float(np.percentile(milliseconds, 99)))


def _both(milliseconds: tuple[float, float]) -> str:
    return f"{milliseconds[0]:.1f} and {milliseconds[1]:.1f} ms"


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def _kilobytes(name: str) -> int:
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0])


if __name__ == "__main__":
    if sys.argv[1] == "build":
        print(json.dumps(build(sys.argv[2], int(sys.argv[3]))))
    elif sys.argv[1] == "ask":
        print(json.dumps(ask(sys.argv[2])))
    else:
        print(json.dumps(asdict(measure_one(Path(sys.argv[2]), int(sys.argv[1])))))
