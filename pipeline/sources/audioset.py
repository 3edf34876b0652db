"""AudioSet's tables: segment CSVs and class labels, read and written in the official layout.

`class_labels_indices.csv`: header `index,mid,display_name`. Segment files: three comment lines, then
`YTID, start_seconds, end_seconds, "mid,mid"`. Both are described at research.google.com/audioset/download.html.
"""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

LABELS_FILE = "class_labels_indices.csv"
ONTOLOGY_FILE = "ontology.json"
SEGMENTS_HEAD = 3  # lines of comment at the start of a segments file


class Segment(NamedTuple):
    """One row of a segments file: a stretch of a YouTube recording with its labels."""

    ytid: str  # 11 characters; may start with - or _
    start_s: float
    end_s: float
    mids: tuple[str, ...]


def key(ytid: str, start_s: float, end_s: float) -> str:
    """Make the clip key `Y<ytid>_<start_ms>_<end_ms>`; it has no dot, which would split a WebDataset sample."""
    return f"Y{ytid}_{round(start_s * 1000)}_{round(end_s * 1000)}"


def slug(name: str) -> str:
    """Make a key of any other id: letters, also accented, digits, `-` and `_` stay, the rest becomes `_`."""
    return re.sub(r"[^\w-]+", "_", unicodedata.normalize("NFC", name))


def is_segments(text: str) -> bool:
    """Return whether a text is a segments file, by its comment header."""
    return text.startswith("#") and "YTID" in text[:500]


def read_segments(lines: Iterable[str]) -> Iterator[Segment]:
    """Yield the rows of a segments file. Raises ValueError naming the line when one has no four fields."""
    for number, fields in enumerate(csv.reader(lines, skipinitialspace=True), start=1):
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) != 4:
            raise ValueError(f"line {number}: want YTID, start_seconds, end_seconds, positive_labels; got {fields}")
        ytid, start, end, mids = fields
        try:
            yield Segment(ytid, float(start), float(end), split_mids(mids))
        except ValueError:
            raise ValueError(f"line {number}: start and end must be seconds; got {start!r} and {end!r}") from None


def split_mids(cell: str) -> tuple[str, ...]:
    """Return the machine ids of a cell of `positive_labels`."""
    return tuple(mid for mid in map(str.strip, cell.split(",")) if mid)


def write_segments(segments: Iterable[Segment]) -> str:
    """Return the text of a segments file."""
    rows = list(segments)
    labels = [mid for row in rows for mid in row.mids]
    head = (
        "# Segments csv in the AudioSet layout\n"
        f"# num_ytids={len({row.ytid for row in rows})}, num_segs={len(rows)}, "
        f"num_unique_labels={len(set(labels))}, num_positive_labels={len(labels)}\n"
        "# YTID, start_seconds, end_seconds, positive_labels\n"
    )
    lines = (f'{r.ytid}, {r.start_s:.3f}, {r.end_s:.3f}, "{",".join(r.mids)}"\n' for r in rows)
    return head + "".join(lines)


def label_text(label: str) -> str:
    """Return the words of a label in a text: its first name, in lower case."""
    return label.partition(",")[0].lower()


def read_labels(text: str) -> dict[str, str]:
    """Return {mid: display name} in index order."""
    return {row["mid"]: row["display_name"] for row in csv.DictReader(io.StringIO(text))}


def read_ontology(text: str) -> dict[str, tuple[str, ...]]:
    """Return {mid: mids of its children} of the official ontology.json."""
    return {node["id"]: tuple(node["child_ids"]) for node in json.loads(text)}


def write_labels(names: dict[str, str]) -> str:
    """Return the text of a class-labels file for {mid: display name}."""
    lines = (f'{index},{mid},"{name}"\n' for index, (mid, name) in enumerate(names.items()))
    return "index,mid,display_name\n" + "".join(lines)
