"""What a dataset of shards holds, counted over its ledgers."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from pipeline.dataset import ledgers


@dataclass
class Statistics:
    """Counts over the written clips of a dataset."""

    clips: int = 0
    captions: int = 0
    distinct: int = 0  # captions that differ
    duration_s: float = 0.0
    tags: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)  # words -> captions
    durations: Counter[int] = field(default_factory=Counter)  # whole seconds, rounded -> clips
    words: Counter[str] = field(default_factory=Counter)
    per_clip: Counter[int] = field(default_factory=Counter)  # captions -> clips
    timed: int = 0  # clips of which it is known when what sounds
    phrases: int = 0
    segments: int = 0
    copies: int = 0  # clips whose audio an earlier clip has too, sample for sample


def collect(data: str, numbers: Iterable[int]) -> Statistics:
    """Count over the ledgers of some shards."""
    found = Statistics()
    texts: list[np.ndarray] = []
    audio: list[np.ndarray] = []
    for ledger in ledgers.read(data, numbers):
        rows = ledger.to_pylist()
        written = [row for row in rows if row["status"] == "written"]
        captions = [text for row in written for text in row["text"]]
        split = [text.split() for text in captions]
        found.clips += len(written)
        found.captions += len(captions)
        found.duration_s += sum(row["duration_s"] for row in written)
        found.tags.update(tag for row in written for tag in row["tags"])
        found.lengths.update(map(len, split))
        found.words.update(word for words in split for word in words)
        found.durations.update(round(row["duration_s"]) for row in written)
        found.per_clip.update(len(row["text"]) for row in written)
        timed = [phrases for row in written if (phrases := row.get("phrases")) is not None]
        found.timed += len(timed)
        found.phrases += sum(map(len, timed))
        found.segments += sum(len(phrase["segments"]) for phrases in timed for phrase in phrases)
        texts.append(np.fromiter(map(hash, captions), np.int64, len(captions)))
        audio.append(np.fromiter((hash(row["sha256"]) for row in written), np.int64, len(written)))
    if audio:
        found.distinct = len(np.unique(np.concatenate(texts)))
        found.copies = found.clips - len(np.unique(np.concatenate(audio)))
    return found


def quantile(counts: Counter[int], share: float) -> int:
    """Return the value below which a share of the counted things lie."""
    rank = share * (sum(counts.values()) - 1)
    for value in sorted(counts):
        rank -= counts[value]
        if rank < 0:
            return value
    return max(counts, default=0)
