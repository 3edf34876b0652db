"""The phrases with times of a step: those of its global batch, the same on every rank, and when they sound in its own rows.

Shapes: B = clips of this rank, P = phrases of the global batch, E = events, each a phrase of a clip with one segment,
U = pairs of a clip and a phrase that may sound in it at any time.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline import audio
from pipeline.sources import audioset
from train.data.loader import Batch, Clips
from train.data.order import Order, Step


class StepPhrases(NamedTuple):
    """The phrases of a step."""

    texts: list[str]  # P, sorted; at least one
    place: Tensor  # (E, 2) int64: row of the clip, and number of the phrase
    segment_s: Tensor  # (E, 2) float32: start and end, from the start of the row
    known: Tensor  # (B,) bool: whether the clip's times are known
    unclear: Tensor  # (U, 2) int64: row and phrase, of a clip whose tag it is and that has no time for it


def has_phrases(clips: Clips) -> bool:
    """Return whether any clip has a phrase with times."""
    return any(clips.phrases)


def phrases(clips: Clips) -> list[str]:
    """Return the phrases of all clips, sorted."""
    return sorted({each["phrase"] for found in clips.phrases for each in found or ()})


def of_step(clips: Clips, order: Order, batch: Batch, step: Step) -> StepPhrases:
    """Return the phrases of a step; `batch` is this rank's share of it."""
    texts = sorted(
        {each["phrase"] for index in order.step(step.number).clips for each in clips.phrases[int(index)] or ()}
    )
    number = {text: column for column, text in enumerate(texts)}
    own = [clips.phrases[index] for index in batch.indices]
    events = [
        (row, number[each["phrase"]], start_s - first / audio.SAMPLE_RATE_HZ, end_s - first / audio.SAMPLE_RATE_HZ)
        for row, (found, first) in enumerate(zip(own, batch.starts, strict=True))
        for each in found or ()
        for start_s, end_s in each["segments"]
    ]
    table = torch.tensor(events, dtype=torch.float64).reshape(-1, 4)
    known = torch.tensor([found is not None for found in own])
    timed = {(row, column) for row, column, *_ in events}
    tagged = {(row, number.get(audioset.label_text(tag))) for row, tags in enumerate(batch.tags) for tag in tags}
    unclear = sorted((row, column) for row, column in tagged if column is not None and (row, column) not in timed)
    pairs = torch.tensor(unclear, dtype=torch.int64).reshape(-1, 2)
    return StepPhrases(texts or [""], table[:, :2].long(), table[:, 2:].float(), known, pairs)
