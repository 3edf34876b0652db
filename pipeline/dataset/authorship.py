"""Which captioner wrote which captions of a dataset, and whether scores are of the captions that are there.

overlay.json holds, beside what its stage says of it:

    captions_sha256   of captions: hash of all of them. Of scores: that of the captions that were scored
    captioners        of captions: {captioner: {clips, captions, first, example}}
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from pipeline import run_dir, storage
from pipeline.dataset import overlays, shards
from pipeline.errors import InputError

SCORES = "pipeline score"  # stage of overlays that hold scores of captions
OWN = "shards"  # name of the shards' own captions, where overlays are named
DIGEST = "captions_sha256"  # in overlay.json, and in the metadata of a part with scores


class CaptionerCount(TypedDict):
    """What one captioner wrote."""

    clips: int  # that have a caption of it
    captions: int
    first: int  # clips whose first caption is of it
    example: str  # the first caption of one of those clips, else any


def title(record: Mapping[str, Any]) -> str:
    """Return the captioner of a caption by its record; in a choice among overlays, after the overlay it came from."""
    model = record.get("model") or "unknown captioner"
    return f"{record['overlay']}: {model}" if record.get("overlay") else model


def count(clips: Iterable[Sequence[Mapping[str, Any]]]) -> dict[str, CaptionerCount]:
    """Count captions by captioner, most captions first.

    Args:
        clips: the records of each clip's captions, best first.
    """
    found: dict[str, CaptionerCount] = {}
    for records in clips:
        titles = [title(record) for record in records]
        for name, record in zip(titles, records, strict=True):
            one = found.setdefault(name, {"clips": 0, "captions": 0, "first": 0, "example": record["text"]})
            one["captions"] += 1
        for name in set(titles):
            found[name]["clips"] += 1
        if titles:
            one = found[titles[0]]
            one["example"] = one["example"] if one["first"] else records[0]["text"]
            one["first"] += 1
    return dict(sorted(found.items(), key=lambda item: (-item[1]["captions"], item[0])))


def describe(data: str, name: str) -> dict[str, Any]:
    """Return what overlay.json of new captions holds of them, read from the parts."""
    digests: dict[int, str] = {}

    def records() -> Iterable[list[dict[str, Any]]]:
        for shard in shards.sizes(data):
            rows = list(overlays.read_part(data, name, shard).values())
            digests[shard] = digest(rows)
            yield from (json.loads(row["captions"] or "[]") for row in rows)

    captioners = count(records())
    return {DIGEST: joined(digests), "captioners": captioners}


def digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a hash of the captions of a shard: rows with `key` and `text`; '' where there is no caption."""
    lines = sorted(json.dumps([row["key"], row["text"]]) for row in rows if row["text"])
    return hashlib.sha256("\n".join(lines).encode()).hexdigest() if lines else ""


def joined(digests: Mapping[int, str]) -> str:
    """Return the hash of the captions of a dataset, of those of its shards by number."""
    lines = [f"{shard} {one}" for shard, one in sorted(digests.items()) if one]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def captions_sha256(data: str, name: str) -> str:
    """Return the hash of the captions of an overlay, or of the shards' own where `name` is ''."""
    if name and (stored := overlays.read_info(data, name).get(DIGEST)):
        return str(stored)
    return joined({shard: digest(read(data, name, shard).values()) for shard in shards.sizes(data)})


def read(data: str, name: str, shard: int) -> dict[str, overlays.CaptionsRow]:
    """Return the captions of a shard by key: of an overlay, or its own where `name` is ''. Only overlays have records."""
    if name:
        part: dict[str, overlays.CaptionsRow] = overlays.read_part(data, name, shard)
        return part
    own = overlays.read_clips(data, shard)
    return {
        one["key"]: {"key": one["key"], "text": one["text"], "score": one["score"], "captions": None} for one in own
    }


def scored_captions(data: str, name: str) -> str | None:
    """Return the overlay whose captions an overlay scores, '' for the shards' own; None of one without scores."""
    info = overlays.read_info(data, name)
    if info.get("stage") != SCORES:
        return None
    if "captions" in info:
        return str(info["captions"])
    marker = storage.join(overlays.folder(data, name), run_dir.RUN_FILE)  # as overlay.json did not name it at first
    return str(storage.read_json(marker).get("captions", "")) if storage.exists(marker) else ""


def origin(data: str, name: str) -> dict[str, Any]:
    """Return which stage and model made an overlay, or the shards' own captions ('shards'); of scores also what they are
    of, and of a choice its candidates."""
    if name == OWN:
        made = storage.read_json(storage.join(data, run_dir.RUN_FILE))
        made_by = {"model": made["captioner"], "revision": made["captioner_revision"]}
        return {"overlay": name, "stage": "pipeline caption", **made_by}
    info = overlays.read_info(data, name)
    found: dict[str, Any] = {"overlay": name, **{key: info.get(key, "") for key in ("stage", "model", "revision")}}
    if (scored := scored_captions(data, name)) is not None:
        found["scored"] = origin(data, scored or OWN)
    if "candidates" in info:
        found["candidates"] = info["candidates"]
    return found


def check_scored(data: str, name: str, flag: str) -> None:
    """Raise InputError where an overlay has scores of other captions than the overlay they were made from has now.

    Overlays of before there was a record of that pass, and so do those whose captions are gone: their own copy is right.
    """
    info = overlays.read_info(data, name)
    if info.get("stage") != SCORES or DIGEST not in info:
        return
    source = info["captions"]
    if source and not storage.exists(storage.join(overlays.folder(data, source), overlays.MARK_FILE)):
        return
    if captions_sha256(data, source) != info[DIGEST]:
        named = f"the overlay {source} has" if source else "the shards have"
        captions = f" --captions {source}" if source else ""
        remedy = f"scores other captions than {named} now; score those with `pipeline score{captions}` and a new --name"
        raise InputError(flag, name, remedy)
