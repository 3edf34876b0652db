"""Decontamination: clips of evaluation sets stay out of training data.

A clip is recognised by its id in YouTube or Freesound, or by its file name, from the official metadata file of a set;
and, where fingerprints of the evaluation audio are given, by how it sounds. Ids match whole recordings: another
stretch of the same recording is excluded too.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pipeline import storage
from pipeline.errors import InputError
from pipeline.planning.plan import EvaluationList, MatchedSets
from pipeline.sources import audioset
from pipeline.sources.clip import Clip, find_recording_id, stem

Row = dict[str, str]
NAMED_BY_YOUTUBE = re.compile(
    r"Y?([\w-]{11})(?:_[\d.]+){0,2}"
)  # a file or key: an id, and often where in the recording


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """An evaluation set and how its official metadata file is recognised and read."""

    name: str
    files: re.Pattern[str]  # of the file's name; other splits of a set must not match
    columns: frozenset[str]  # of its header
    ids: Callable[[Row], list[str]]  # row -> `youtube:<id>`, `freesound:<id>` or `file:<name>`


def _set(name: str, files: str, columns: Iterable[str], ids: Callable[[Row], list[str]]) -> EvaluationSet:
    return EvaluationSet(name=name, files=re.compile(files, re.IGNORECASE), columns=frozenset(columns), ids=ids)


def _file(row: Row, column: str) -> str:
    return f"file:{stem(row[column]).lower()}"


SETS = {
    each.name: each
    for each in (
        _set("audioset-eval", r"eval_segments", ["ytid"], lambda row: [f"youtube:{row['ytid']}"]),
        _set(
            "audiocaps", r"^(?!.*train).*(test|val)", ["audiocap_id", "youtube_id"],
            lambda row: [f"youtube:{row['youtube_id']}"],
        ),
        _set(
            "clotho", r"clotho.*(test|val|evaluation)", ["file_name"],
            lambda row: [_file(row, "file_name"), *([f"freesound:{row['sound_id']}"] if row.get("sound_id") else [])],
        ),
        _set("vggsound", r"vggsound(_test)?\.csv", ["ytid"], lambda row: [f"youtube:{row['ytid']}"]),
        _set("fsd50k", r"eval", ["fname", "labels", "mids"], lambda row: [f"freesound:{row['fname']}"]),
        _set(
            "esc50", r"esc", ["filename", "src_file", "esc10"],
            lambda row: [f"freesound:{row['src_file']}", _file(row, "filename")],
        ),
        _set(
            "urbansound8k", r"urbansound", ["slice_file_name", "fsID"],
            lambda row: [f"freesound:{row['fsID']}", _file(row, "slice_file_name")],
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DecontaminationConfig:
    """Which evaluation clips are kept out of the data."""

    lists: tuple[str, ...] = ()
    """Official metadata files of evaluation sets, folders of them, or <name>=<file with one id a line>; those that
    lie beside the source are found without."""
    allow: tuple[str, ...] = ()
    """Evaluation sets whose clips may be captioned all the same, such as esc50 to train on its other folds."""
    required: tuple[str, ...] = ()
    """Evaluation sets without which there is no plan: a missing list is an error."""
    fingerprints: tuple[str, ...] = ()
    """Tables that `pipeline fingerprint` made of evaluation audio; clips that sound like a part of it are left out."""


class Decontamination:
    """Ids of the evaluation sets that have a list."""

    def __init__(self, config: DecontaminationConfig, source: str) -> None:
        for flag, names in (("--firewall.allow", config.allow), ("--firewall.required", config.required)):
            for name in names:
                if name not in SETS:
                    raise InputError(flag, name, f"choose among {', '.join(SETS)}")
        self.sets: dict[str, str] = {}  # id -> the set it is of
        self.lists: list[EvaluationList] = []
        for name, uri in _lists(config, source):
            ids = set(_ids(name, uri))
            if not ids:
                raise InputError("--firewall.lists", uri, "lists no id")
            self.lists.append(EvaluationList(set=name, list=uri, ids=len(ids), allowed=name in config.allow))
            if name not in config.allow:
                self.sets |= {i: name for i in ids if i not in self.sets}
        have = {entry.set for entry in self.lists}
        if missing := [name for name in config.required if name not in have | {*config.allow}]:
            remedy = "give their official metadata files with --firewall.lists, or name them in --firewall.allow"
            raise InputError("--firewall.required", missing, remedy)
        self.unchecked = [name for name in SETS if name not in have]

    def summary(self, excluded: dict[str, int]) -> MatchedSets:
        """Return what plan.json states, given the number of excluded clips by set."""
        return MatchedSets(excluded=excluded, lists=self.lists, unchecked=self.unchecked)

    def match(self, clip: Clip) -> str:
        """Return the evaluation set that a clip belongs to, or ''."""
        name = stem(clip.source_id.rpartition("/")[2])
        youtube = (f"youtube:{named[1]}" for text in (name, clip.key) if (named := NAMED_BY_YOUTUBE.fullmatch(text)))
        ids = (clip.recording_id, f"file:{name.lower()}", *youtube)
        return next((self.sets[one] for one in ids if one in self.sets), "")


def _lists(config: DecontaminationConfig, source: str) -> Iterator[tuple[str, str]]:
    """Yield (set, file) of every list that is given or lies beside the source."""
    seen = set()
    folder = source if storage.is_folder(source) else source.rpartition("/")[0]
    for uri in (folder, storage.join(folder, "meta")):
        for name, found in _recognised(uri, [n for n in storage.names(uri) if n.endswith((".csv", ".csv.gz"))]):
            if found != source:
                seen.add(found)
                yield name, found
    for item in config.lists:
        name, sign, path = item.partition("=")
        uri = storage.resolve(path if sign else item)
        if not storage.exists(uri):
            raise InputError("--firewall.lists", item, "no such file")
        inside = [n for n in storage.list_names(uri) if ".csv" in n] if storage.is_folder(uri) else []
        parent, _, own = uri.rpartition("/")
        found_lists = (
            [(name, uri)] if sign else [*_recognised(uri, inside)] if inside else [*_recognised(parent, [own])]
        )
        if not found_lists:
            remedy = "is no known metadata file of an evaluation set; write <set>=<file> to say which it is"
            raise InputError("--firewall.lists", item, remedy)
        yield from ((each, found) for each, found in found_lists if found not in seen)


def _recognised(folder: str, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in sorted(names):
        candidates = [each for each in SETS.values() if each.files.search(name)]
        if candidates:
            uri = storage.join(folder, name)
            header = set(next(iter(_rows(uri)), {}))
            yield from ((each.name, uri) for each in candidates if each.columns <= header)


def _ids(name: str, uri: str) -> Iterator[str]:
    rows = _rows(uri)
    first = next(rows, {})
    known = SETS.get(name)
    if known and known.columns <= set(first):
        for row in (first, *rows):
            if name != "vggsound" or row["split"] != "train":
                yield from known.ids(row)
    else:
        with storage.open_text(uri) as text:
            for line in filter(None, map(str.strip, text)):
                if "," in line:
                    fault = f"{line!r} is no id, and the columns are not those of {name}"
                    raise InputError("--firewall.lists", uri, f"{fault}; give one id a line, or the official file")
                yield find_recording_id(line) or (line if ":" in line else f"youtube:{line}")


def _rows(uri: str) -> Iterator[Row]:
    """Yield the rows of a metadata file by column. Raises InputError when it cannot be read."""
    try:
        yield from _table(uri)
    except (ValueError, OSError, EOFError, csv.Error) as error:
        raise InputError("--firewall.lists", uri, f"cannot be read: {error}") from None


def _table(uri: str) -> Iterator[Row]:
    """Yield a metadata file's rows; AudioSet's segments and VGGSound's table, that come without a header, get one."""
    with storage.open_text(uri, errors="replace") as text:  # Clotho's are in Latin-1; ids and audio names survive
        head = "".join(text.readline() for _ in range(audioset.SEGMENTS_HEAD))
    with storage.open_text(uri, errors="replace") as text:
        if audioset.is_segments(head):
            yield from ({"ytid": segment.ytid} for segment in audioset.read_segments(text))
        elif "vggsound" in uri.rpartition("/")[2].lower():
            for fields in filter(None, csv.reader(text)):
                yield {"ytid": fields[0][:11], "split": fields[3] if len(fields) > 3 else "test"}
        else:
            yield from csv.DictReader(text, restval="")
