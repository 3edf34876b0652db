"""A sigmoid loss of frames against phrases: when does what is named sound? Pure functions of embeddings.

A frame and a phrase are a pair, right where the phrase sounds in the frame. Like SigLIP's loss (Zhai et al. 2023,
arXiv 2303.15343), this one takes every pair by itself. Phrases are those of all clips of the global batch, on every rank, so
that the mean of the gradients over ranks is that of one process. Shapes: B = clips of this rank, S = frames, P = phrases,
D = embedding size, E = events, each a phrase of a clip with one segment, U = pairs of a clip and a phrase.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as nnf

from train.losses.contrastive import Exchange
from train.models.clap import FrameTowers
from train.models.encoders.encoder import frame_mask


class Events(NamedTuple):
    """What sounds when."""

    place: Tensor  # (E, 2) int64: row of the clip, and number of the phrase
    segment_s: Tensor  # (E, 2) start and end, from the start of the row
    known: Tensor  # (B,) bool: False for a clip whose times are not known; it does not count
    unclear: Tensor  # (U, 2) int64: row of the clip and number of the phrase; such a pair does not count


def loss(frames: FrameTowers, events: Events, valid: Tensor, ranks: Exchange) -> Tensor:
    """Return the loss of this rank, float32: the mean over clips of the sum over phrases of the mean over frames.

    Args:
        frames: of this rank's clips, and the phrases of all.
        events: of this rank's clips.
        valid: (B,) bool: False for a clip that does not count.
        ranks: see `Exchange`.
    """
    with torch.autocast(frames.audio.device.type, enabled=False):
        counted = events.known & valid
        target = targets(frames, events)
        logits = frames.scale * frames.audio.float() @ frames.phrase.float().T + frames.bias  # (B, S, P)
        clear = torch.ones(len(logits), logits.shape[2], device=logits.device)  # (B, P)
        clear = clear.index_put(events.unclear.unbind(dim=1), torch.zeros((), device=logits.device))
        pairs = -nnf.logsigmoid(torch.where(target, logits, -logits))
        terms = (pairs * clear[:, None]).sum(dim=2)  # (B, S)
        inside = frame_mask(frames.num_frames, terms.shape[1])
        means = (terms * inside).sum(dim=1) / frames.num_frames
        return (means * counted).sum() * ranks.world_size / ranks.gather(counted).sum().clamp(min=1)


def targets(frames: FrameTowers, events: Events) -> Tensor:
    """Return which phrase sounds in which frame, (B, S, P) bool.

    It sounds in a frame whose middle lies in a segment, and of a segment without such a frame in that of its own middle.
    """
    start, end = events.segment_s[:, :1], events.segment_s[:, 1:]  # (E, 1)
    centre = (frames.edges_s[:-1] + frames.edges_s[1:]) / 2
    covered = (centre >= start) & (centre < end)  # (E, S)
    middle = (start + end) / 2
    holds_middle = (frames.edges_s[:-1] <= middle) & (middle < frames.edges_s[1:])
    covered = covered | (holds_middle & ~covered.any(dim=1, keepdim=True))
    row, phrase = events.place.unbind(dim=1)
    found = torch.zeros(len(frames.audio), len(frames.phrase), len(centre), device=centre.device)
    found = found.index_put((row, phrase), covered.float(), accumulate=True)
    return (found > 0).transpose(1, 2)
