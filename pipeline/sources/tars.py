"""WebDataset tars (LAION, img2dataset, our own) -> clips. Listing keeps only the location of each clip's audio.

As in webdataset, a sample is the members that share a name up to the first dot, wherever they stand in the tar. Titles with
dots stay whole: members that share all but a known suffix (`a.b.mp3`, `a.b.json`) are a sample. Suffixes are compared in
lower case. Of members with one name the last is used, as by tar. A damaged tar adds a clip with a fault: a ledger row.
"""

import json
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import BinaryIO

from pipeline import storage
from pipeline.sources.clip import SUFFIXES, Clip
from pipeline.sources.listing_stats import ListingStats, end_of
from pipeline.sources.packed_clip import damaged, packed_clip
from pipeline.sources.rows import Fields
from pipeline.sources.tables import Options

TEXTS = (".json", ".txt")
FIELDS = re.compile(r"(\.[A-Za-z_][\w-]*)*")  # after the first dot of a name: `.audio`, `.meta`


@dataclass
class _Member:
    offset: int
    size: int
    data: bytes = b""  # of JSON and texts
    times: int = 1  # that the name stands in the tar


@dataclass
class _Sample:
    audio: tuple[str, _Member] | None = None
    texts: dict[str, bytes] = field(default_factory=dict)  # suffix -> contents
    notes: list[str] = field(default_factory=list)


def list_tar(uri: str, stats: ListingStats, options: Options) -> list[Clip]:
    """List the samples of one uncompressed tar."""
    members: dict[str, _Member] = {}
    fault = ""
    with storage.open_stream(uri) as stream:
        forward = _ForwardStream(stream)
        try:
            with tarfile.open(fileobj=forward, mode="r:") as tar:  # type: ignore[call-overload]
                for entry in tar:
                    _add_member(members, tar, entry, stats)
            if any(forward.last) or not forward.last:
                fault = "truncated: the tar breaks off or is damaged"
        except tarfile.TarError as error:
            fault = f"truncated: {error}" if members else f"unreadable: {error}"
    clips = [_clip(uri, name, sample, options) for name, sample in _samples(members, stats).items()]
    if fault:
        stats.read["damaged ends"] += 1
        clips.append(damaged(uri, "end of ", fault))
    return clips


class _ForwardStream:
    """A stream in which tarfile skips forward. Keeps the last block that was read, to check the end of the tar."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.position, self.last = stream, 0, b""

    def tell(self) -> int:
        return self.position

    def seek(self, position: int, whence: int = 0) -> int:
        assert whence == 0 and position >= self.position, (position, self.position)
        self.position = self.stream.seek(
            position
        )  # of an object, within a buffer or to the next one: no short requests
        return self.position

    def read(self, size: int) -> bytes:
        self.last = self.stream.read(size)
        self.position += len(self.last)
        return self.last


def _add_member(members: dict[str, _Member], tar: tarfile.TarFile, entry: tarfile.TarInfo, stats: ListingStats) -> None:
    """Keep the location of a member, and the contents of a text; count members that are no part of a sample."""
    if entry.isdir():
        return
    name = entry.name.removeprefix("./")
    base, suffix = name.rpartition("/")[2], _suffix(name)
    if not entry.isfile():
        stats.skip("members", "link or device")
    elif base.startswith("."):  # macOS writes one beside a file
        stats.skip("members", "hidden file")
    elif not suffix:
        stats.skip("members", end_of(base))
    else:
        stats.read["members"] += 1
        file = tar.extractfile(entry) if suffix in TEXTS else None
        before = members.get(name)
        if before:
            stats.skipped["replaced by a later member of its name"] += 1
        times = before.times + 1 if before else 1
        members[name] = _Member(entry.offset_data, entry.size, file.read() if file else b"", times)


def _samples(members: dict[str, _Member], stats: ListingStats) -> dict[str, _Sample]:
    """Return the samples by name, in the order in which their first members stand."""
    groups: dict[str, list[str]] = {}
    for name, sample_name in _sample_names(members).items():
        groups.setdefault(sample_name, []).append(name)
    samples: dict[str, _Sample] = {}
    for group, names in groups.items():
        titles = {_title(name) for name in names}
        sample = samples.setdefault(group if titles == {group} else _first_part(group), _Sample())
        for name in sorted(names, key=lambda name: _title(name) != group):  # `a.json` before `a.meta.json`
            member, suffix = members[name], _suffix(name)
            if suffix not in TEXTS and sample.audio is None:
                sample.audio = name, member
            elif suffix in TEXTS and suffix not in sample.texts:
                sample.texts[suffix] = member.data
            else:
                kind = suffix if suffix in TEXTS else "audio"
                stats.skipped[f"second {kind} of a sample"] += 1
                continue
            if member.times > 1:
                sample.notes.append(f"{name} stands {member.times} times in the tar, the last is used")
        stats.merged += (sample.audio is not None) + len(sample.texts) - 1
    return samples


def _sample_names(members: Iterable[str]) -> dict[str, str]:
    """Return {member: name of its sample}: its title, or that of the one audio that shares its name up to the first dot.

    The latter only where the part after the dot is the name of a field, as in `1.audio.flac` with `1.meta.json`: `v1.2.json`
    is no text of `v1.3.flac`.
    """
    names = list(members)
    titles = {_title(name) for name in names if _suffix(name) not in TEXTS}
    near: dict[str, set[str]] = defaultdict(set)
    for title in filter(_is_field, titles):
        near[_first_part(title)].add(title)
    found = {}
    for name in names:
        title = _title(name)
        around = near[_first_part(title)] if _is_field(title) else ()
        found[name] = next(iter(around)) if title not in titles and len(around) == 1 else title
    return found


def _is_field(title: str) -> bool:
    """Return whether a name without its suffix is a plain one, or ends in names of fields."""
    return FIELDS.fullmatch(title[len(_first_part(title)) :]) is not None


def _suffix(name: str) -> str:
    """Return the known suffix that a name ends in, in lower case, or ''."""
    dot = name.rpartition("/")[2].rfind(".")
    end = name[name.rfind(".") :].lower() if dot > 0 else ""
    return end if end in SUFFIXES or end in TEXTS else ""


def _title(name: str) -> str:
    return name[: -len(_suffix(name))]


def _first_part(title: str) -> str:
    """Return a name up to the first dot after its last slash."""
    folder, slash, base = title.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _clip(uri: str, name: str, sample: _Sample, options: Options) -> Clip:
    fault = "" if sample.audio else f"missing: the tar has no audio for {name}"
    fields: Fields = {}
    try:
        fields = json.loads(sample.texts.get(".json", b"{}"))
        if not isinstance(fields, dict):
            fields, fault = {}, fault or f"unreadable: {name}.json is no JSON object"
        if ".txt" in sample.texts:
            fields.setdefault("text", sample.texts[".txt"].decode())
    except ValueError as error:
        fault = fault or f"unreadable: {name}.json or .txt: {error}"
    member = sample.audio[1] if sample.audio else _Member(-1, -1)
    note = "; ".join(sample.notes)
    return packed_clip(uri, name, fields, options, offset=member.offset, size=member.size, fault=fault, note=note)
