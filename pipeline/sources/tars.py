"""WebDataset tars (LAION, img2dataset, our own) -> clips. Listing keeps only where each clip's audio lies.

A sample is the members that share a name up to the first dot, as webdataset has it, wherever they stand in the tar. Titles
with dots stay whole: members that share all but a known suffix (`a.b.mp3`, `a.b.json`) are a sample of their own. Suffixes
count in any case. Of a member that stands twice the last is used, as tar itself has it. What is wrong with a tar becomes a
clip with a fault: a row of the ledger, and never a clip less.
"""

import json
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from pipeline import storage
from pipeline.sources.clip import SUFFIXES, Clip
from pipeline.sources.described import damaged, described
from pipeline.sources.stats import ListingStats, end_of
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
        forward = _Forward(stream)
        try:
            with tarfile.open(fileobj=forward, mode="r:") as tar:  # type: ignore[call-overload]
                for entry in tar:
                    _note(members, tar, entry, stats)
            if any(forward.last) or not forward.last:
                fault = "truncated: the tar breaks off or is damaged"
        except tarfile.TarError as error:
            fault = f"truncated: {error}" if members else f"unreadable: {error}"
    clips = [_clip(uri, name, sample, options) for name, sample in _samples(members, stats).items()]
    if fault:
        stats.read["damaged ends"] += 1
        clips.append(damaged(uri, "end of ", fault))
    return clips


class _Forward:
    """A stream that tarfile may skip forward in; remembers the last block it gave, to see how the tar ended."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.place, self.last = stream, 0, b""

    def tell(self) -> int:
        return self.place

    def seek(self, place: int, whence: int = 0) -> int:
        assert whence == 0 and place >= self.place, (place, self.place)
        while self.place < place and (skipped := self.stream.read(min(place - self.place, 2**20))):
            self.place += len(skipped)
        return self.place

    def read(self, size: int) -> bytes:
        self.last = self.stream.read(size)
        self.place += len(self.last)
        return self.last


def _note(members: dict[str, _Member], tar: tarfile.TarFile, entry: tarfile.TarInfo, stats: ListingStats) -> None:
    """Keep where a member lies, and the contents of a text; count what is no part of a sample."""
    if entry.isdir():
        return
    name = entry.name.removeprefix("./")
    base, known = name.rpartition("/")[2], _suffix(name)
    if not entry.isfile():
        stats.skip("members", "link or device")
    elif base.startswith("."):  # what macOS puts beside a file
        stats.skip("members", "hidden file")
    elif not known:
        stats.skip("members", end_of(base))
    else:
        stats.read["members"] += 1
        file = tar.extractfile(entry) if known in TEXTS else None
        before = members.get(name)
        if before:
            stats.skipped["replaced by a later member of its name"] += 1
        times = before.times + 1 if before else 1
        members[name] = _Member(entry.offset_data, entry.size, file.read() if file else b"", times)


def _samples(members: dict[str, _Member], stats: ListingStats) -> dict[str, _Sample]:
    """Return the samples by name, in the order in which their first members stand."""
    groups: dict[str, list[str]] = {}
    for name, whole in _whole_names(members).items():
        groups.setdefault(whole, []).append(name)
    samples: dict[str, _Sample] = {}
    for whole, names in groups.items():
        shared = {_title(name) for name in names}
        sample = samples.setdefault(whole if shared == {whole} else _first_part(whole), _Sample())
        for name in sorted(names, key=lambda name: _title(name) != whole):  # `a.json` before `a.meta.json`
            member, suffix = members[name], _suffix(name)
            if suffix not in TEXTS and sample.audio is None:
                sample.audio = name, member
            elif suffix in TEXTS and suffix not in sample.texts:
                sample.texts[suffix] = member.data
            else:
                stats.skipped[
                    "second audio of a sample" if suffix not in TEXTS else f"second {suffix} of a sample"
                ] += 1
                continue
            if member.times > 1:
                sample.notes.append(f"{name} stands {member.times} times in the tar, the last is used")
        stats.merged += (sample.audio is not None) + len(sample.texts) - 1
    return samples


def _whole_names(members: Iterable[str]) -> dict[str, str]:
    """Return {member: name of its sample}: its title, or that of the one audio that shares its name up to the first dot.

    The latter only where what follows the dot names a field, as in `1.audio.flac` with `1.meta.json`: `v1.2.json` is no text
    of `v1.3.flac`.
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
    fields: dict[str, Any] = {}
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
    return described(uri, name, fields, options, offset=member.offset, size=member.size, fault=fault, note=note)
