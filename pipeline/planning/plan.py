"""The plan of a dataset, as plan.json holds it: how many clips and shards, how they were chosen, and what was tried again.

The tables of the plan hold the clips (pipeline/planning/tables.py). The hash of a plan covers everything that decides what a
shard holds, but not where the audio lies. Clips of evaluation sets stay in the plan, with the name of the set.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import storage
from pipeline.dataset import shards
from pipeline.planning import tables as plan_tables
from pipeline.planning.tables import Part
from pipeline.sources import ListingStats

PLAN_FILE, TABLE_FILE = "plan.json", "plan.parquet"  # one table: datasets of before December 2026


@dataclass(frozen=True, kw_only=True)
class MadeFrom:
    """What a plan was made from. An equal one gives the same plan: the source is not listed again."""

    source: str
    """URI of the listing."""
    folds: list[str]
    stamp: str
    """Changes when the files of the listing do."""
    lists: list[list[list[int]]]
    """Size (bytes) and time of change (ns) of the files of every evaluation list."""
    allow: list[str]
    """Evaluation sets whose clips are not excluded."""
    fingerprints: list[str]
    """Revisions of the fingerprint tables of evaluation audio."""
    clips_per_shard: int
    max_shard_mb: float | None
    """Megabytes in a shard at most; 0 and None bound by clips alone. None: planned before there was this bound."""
    columns: str = ""
    """Columns of a table that are named otherwise."""
    timed: bool = False
    """Whether the tables hold the events of the clips."""
    texts: bool = False
    """Whether the tables hold the captions or titles that the source gives."""

    @property
    def extra(self) -> tuple[str, ...]:
        """Return which columns of EXTRA the tables have."""
        return (*(["events"] if self.timed else []), *(["texts"] if self.texts else []))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "MadeFrom":
        """Return what plan.json holds."""
        return cls(
            source=content["source"],
            folds=content["folds"],
            stamp=content["stamp"],
            lists=content["lists"],
            allow=content["allow"],
            fingerprints=content["fingerprints"],
            clips_per_shard=content["clips_per_shard"],
            max_shard_mb=content.get("max_shard_mb"),
            columns=content.get("columns", ""),
            timed=content.get("timed", False),
            texts=content.get("texts", False),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what plan.json holds: fields that were added later are left out where they are empty."""
        later = {"max_shard_mb": None, "columns": "", "timed": False, "texts": False}
        omitted = {name for name, empty in later.items() if getattr(self, name) == empty}
        return {name: value for name, value in vars(self).items() if name not in omitted}


@dataclass(frozen=True, kw_only=True)
class EvaluationList:
    """A list of the clips of an evaluation set, as it was found."""

    set: str
    """Name of the set."""
    list: str
    """URI of the list."""
    ids: int
    """Number of ids in it."""
    allowed: bool
    """Whether clips of the set stay in."""


@dataclass(frozen=True, kw_only=True)
class MatchedSets:
    """Which evaluation sets a plan was compared with, and how many of its clips are in them."""

    excluded: dict[str, int]
    """Clips left out, by set."""
    lists: list[EvaluationList]
    unchecked: list[str]
    """Sets without a list."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "MatchedSets":
        """Return what plan.json holds."""
        lists = [EvaluationList(**each) for each in content["lists"]]
        return cls(excluded=content["excluded"], lists=lists, unchecked=content["unchecked"])

    def to_json(self) -> dict[str, Any]:
        """Return what plan.json holds."""
        return {**vars(self), "lists": [vars(each) for each in self.lists]}


@dataclass(frozen=True, kw_only=True)
class Retry(Part):
    """Shards of clips that failed and are tried again."""

    reasons: dict[str, int]
    """Clips by the reason for which they failed."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Retry":
        """Return what plan.json holds."""
        fields = {name: content[name] for name in ("reasons", "first_shard", "num_shards", "num_clips", "hash")}
        return cls(**fields, shards_per_table=content.get("shards_per_table"), table=content.get("table", ""))

    def to_json(self) -> dict[str, Any]:
        """Return what plan.json holds."""
        return {
            "reasons": self.reasons,
            "first_shard": self.first_shard,
            "num_shards": self.num_shards,
            "num_clips": self.num_clips,
            "hash": self.hash,
            **({"table": self.table} if self.shards_per_table is None else {"shards_per_table": self.shards_per_table}),
        }


@dataclass(frozen=True, kw_only=True)
class Plan(Part):
    """Which clip goes into which shard. Shards are numbered from 0; those of retries come last."""

    clips_per_shard: int
    """Clips in a shard at most."""
    duration_s: float
    """Seconds of audio, as far as the listing gives lengths."""
    num_without_tags: int
    num_faults: int
    """Clips that the listing itself shows to be unusable."""
    matched_sets: MatchedSets
    tags: dict[str, int]
    """Clips by tag, the most frequent tag first."""
    made_from: MadeFrom
    retries: tuple[Retry, ...] = ()
    listing: ListingStats | None = None
    """Counts of the listing; None in plans of before December 2026."""
    num_timed: int | None = None
    """Clips with events; None where the plan does not hold these."""
    listed_all: bool = False
    """Whether the whole listing had to be held, to give its clips keys of their own; `retry` lists in the same way."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Plan":
        """Return what plan.json holds."""
        names = ("hash", "num_clips", "num_shards", "clips_per_shard", "duration_s", "num_without_tags", "num_faults")
        listing = content.get("listing")
        several = "shards_per_table" in content
        return cls(
            **{name: content[name] for name in names},
            shards_per_table=content["shards_per_table"] if several else None,
            table="" if several else TABLE_FILE,
            matched_sets=MatchedSets.from_json(content["firewall"]),
            tags=content["tags"],
            made_from=MadeFrom.from_json(content["made_from"]),
            retries=tuple(map(Retry.from_json, content["retries"])),
            listing=listing and ListingStats.from_json(listing),
            num_timed=content.get("num_timed"),
            listed_all=(listing or {}).get("holds_all", False),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what plan.json holds. The order of the names is their order in the file."""
        listing = {"listing": {**self.listing.as_json(), "holds_all": self.listed_all}} if self.listing else {}
        return {
            "hash": self.hash,
            "num_clips": self.num_clips,
            "num_shards": self.num_shards,
            **({} if self.shards_per_table is None else {"shards_per_table": self.shards_per_table}),
            "clips_per_shard": self.clips_per_shard,
            "duration_s": self.duration_s,
            "num_without_tags": self.num_without_tags,
            "num_faults": self.num_faults,
            **({} if self.num_timed is None else {"num_timed": self.num_timed}),
            "firewall": self.matched_sets.to_json(),
            "tags": self.tags,
            "made_from": self.made_from.to_json(),
            "retries": [retry.to_json() for retry in self.retries],
            **listing,
        }

    @property
    def shards(self) -> range:
        """Return the numbers of all shards, those of retries included."""
        return range(self.num_shards + sum(retry.num_shards for retry in self.retries))

    @property
    def num_included(self) -> int:
        """Return how many clips are in no evaluation set."""
        return self.num_clips - sum(self.matched_sets.excluded.values())

    def part_of(self, shard: int) -> Part:
        """Return the part that a shard belongs to: the plan itself, or a retry."""
        return next((retry for retry in self.retries if shard in retry), self)

    def missing(self, data: str) -> list[int]:
        """Return the shards that are not committed."""
        return sorted(set(self.shards) - set(shards.committed(data)))

    def count_clips(self, data: str, numbers: Iterable[int]) -> list[int]:
        """Return how many clips are planned for each of some shards."""
        return plan_tables.count_clips(data, [(self.part_of(shard), shard) for shard in numbers])

    def read_shard(self, data: str, shard: int) -> list[plan_tables.PlanRow]:
        """Read the planned clips of one shard."""
        return plan_tables.read_shard(data, self.part_of(shard), shard)


def read_plan(data: str) -> Plan | None:
    """Return the plan of a dataset, or None when it has none."""
    marker = storage.join(data, PLAN_FILE)
    return Plan.from_json(storage.read_json(marker)) if storage.exists(marker) else None
