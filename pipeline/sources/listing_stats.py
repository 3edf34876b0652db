"""The counts of a listing: read = clips + merged + skipped."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_UNKNOWN = 5  # unknown labels that are named


@dataclass
class ListingStats:
    """Counts of a listing. Rows, members of tars and files of folders are items; folders inside a tar are not."""

    read: Counter[str] = field(default_factory=Counter)  # kind of item, in the plural -> items
    clips: int = 0
    merged: int = 0  # items that became a part of another item's clip, such as a JSON or a further caption
    skipped: Counter[str] = field(default_factory=Counter)  # reason -> items
    faults: int = 0  # of the clips, those that the listing itself shows to be unusable
    unknown_labels: Counter[str] = field(default_factory=Counter)  # ids without a name -> clips
    columns: dict[str, str] = field(default_factory=dict)  # role -> the column that is used for it
    unused_columns: dict[str, None] = field(default_factory=dict)  # in the order in which they were met

    def skip(self, kind: str, reason: str, count: int = 1) -> None:
        """Count items that are read and become no part of a clip."""
        if count:
            self.read[kind] += count
            self.skipped[reason] += count

    def add(self, other: "ListingStats") -> None:
        """Add the counts of a further file."""
        self.read.update(other.read)
        self.clips += other.clips
        self.merged += other.merged
        self.skipped.update(other.skipped)
        self.faults += other.faults
        self.unknown_labels.update(other.unknown_labels)
        self.columns |= other.columns
        self.unused_columns |= other.unused_columns

    @property
    def balanced(self) -> bool:
        """Return whether every item that was read is accounted for."""
        return self.read.total() == self.clips + self.merged + self.skipped.total()

    def sentence(self) -> str:
        """Return the counts as one line."""
        items = " + ".join(f"{count:,} {kind}" for kind, count in self.read.items() if count) or "nothing"
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.skipped.most_common() if count)
        line = f"read {items} = {self.clips:,} clips + {self.merged:,} merged + {self.skipped.total():,} skipped"
        line += f" ({reasons})" if reasons else ""
        if self.faults:
            line += f"; {self.faults:,} of the clips have a fault"
        if self.unknown_labels:
            named = ", ".join(f"{label} {n:,}" for label, n in self.unknown_labels.most_common(MAX_UNKNOWN))
            more = len(self.unknown_labels) - MAX_UNKNOWN
            line += f"; labels without a name: {named}" + (f" and {more:,} more" if more > 0 else "")
        return line

    def column_sentence(self) -> str:
        """Return which columns are used and which are not, or ''."""
        used = ", ".join(role if role == name else f"{role}={name}" for role, name in self.columns.items())
        unused = ", ".join(self.unused_columns)
        parts = [f"columns used: {used}" if used else "", f"not used: {unused}" if unused else ""]
        return "; ".join(filter(None, parts))

    @classmethod
    def from_json(cls, counts: Mapping[str, Any]) -> "ListingStats":
        """Return the counts that `as_json` gave."""
        return cls(
            read=Counter(counts["read"]),
            clips=counts["clips"],
            merged=counts["merged"],
            skipped=Counter(counts["skipped"]),
            faults=counts["faults"],
            unknown_labels=Counter(counts["unknown_labels"]),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the counts as JSON has them."""
        return {
            "read": dict(self.read),
            "clips": self.clips,
            "merged": self.merged,
            "skipped": dict(self.skipped.most_common()),
            "faults": self.faults,
            "unknown_labels": dict(self.unknown_labels.most_common()),
        }


def end_of(name: str) -> str:
    """Return how a name ends, in lower case, as the reason under which files that are not used are counted."""
    base = name.rpartition("/")[2]
    return f".{base.rpartition('.')[2].lower()}" if "." in base.strip(".") else "no suffix"
