"""Captions that a dataset of shards holds already: its own, or those of an overlay."""

import json
from collections.abc import Sequence
from typing import Any

from eval.captioning.makers import GivenTags, Judged, Making
from eval.embedding.in_process import Written
from eval.results.records import ModelRecord
from pipeline import storage
from pipeline.dataset import authorship, overlays, shards
from pipeline.dataset.overlays import CaptionsRow
from pipeline.errors import InputError
from pipeline.sources.clip import Clip

KIND = "written"  # what stands for the kind of guidance in results
NOT_LINEAGE = ("wins_by_tag", "captioners")  # of overlay.json


class DatasetMaker:
    """A `Maker` whose captions are there: the first one of each clip is judged, by the key of the clip."""

    uri = ""

    def __init__(self, data: str, name: str) -> None:
        """Raise InputError where there is no such dataset, or no such overlay of captions."""
        self.data, self.name = storage.resolve(data), name
        try:
            sizes = shards.sizes(self.data)
        except FileNotFoundError as error:
            raise InputError("--data", data, str(error)) from None
        overlays.check_exists(self.data, name)
        info = overlays.read_info(self.data, name) if name else {}
        if name and "model" not in info:
            raise InputError("--captions", name, f"holds no captions: `{info.get('stage')}` wrote it")
        if name:
            authorship.check_scored(self.data, name, "--captions")
        parts = {shard: authorship.read(self.data, name, shard) for shard in sizes}
        self.rows: dict[str, CaptionsRow] = {key: row for part in parts.values() for key, row in part.items()}
        digests = {shard: authorship.digest(part.values()) for shard, part in parts.items()}
        self.record: ModelRecord = {
            "name": name or self.data.rpartition("/")[2],
            "revision": authorship.joined(digests),
            "lineage": {"data": [self.data], "best_only": True, "keep_fraction": 1.0, **self._made_by(info)},
        }

    def _made_by(self, info: dict[str, Any]) -> dict[str, Any]:
        if not self.name:
            return {"stage": "pipeline caption", **shards.provenance(self.data)}
        overlay = {key: value for key, value in info.items() if key not in NOT_LINEAGE}
        return {"stage": info["stage"], "overlay": overlay}

    def write(self, clips: Sequence[Clip], given: GivenTags, making: Making) -> Judged:
        """See `Maker.write`. A clip that the dataset has and that has no caption counts as an empty one."""
        there = [clip for clip in clips if clip.key in self.rows]
        if not there:
            remedy = "has none of the task's clips, by key; caption the task's own clips by `pipeline caption --source`"
            raise InputError("--data", self.data, remedy)
        rows = [self.rows[clip.key] for clip in there]
        texts = [row["text"][0] if row["text"] else "" for row in rows]
        missing = {clip.key: "not in the dataset" for clip in clips if clip.key not in self.rows}
        written = Written({KIND: texts}, {KIND: [[] for _ in there]}, there, missing)
        facts = {"num_tagged": sum(bool(clip.tags) for clip in there), "notes": []}
        return Judged(written, [_captioner(row) for row in rows] if self.name else (), facts)


def _captioner(row: CaptionsRow) -> str:
    """Return who wrote the first caption: the overlay that it was chosen from, else the model."""
    records = {record["text"]: record for record in json.loads(row["captions"] or "[]")}
    record = records.get(row["text"][0]) if row["text"] else None
    return (record.get("overlay") or authorship.title(record)) if record else ""
