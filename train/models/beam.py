"""Batched beam search with the reference's scoring: length-normalised log-probability, the end token counted.

Shapes: B = clips, K = beams, V = vocabulary, t = tokens so far. Rules: wsntxxn/AudioCaption, clip by clip there.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from train.models.words import END, MAX_WORDS, START

RETIRED = 1000.0  # a finished beam keeps its slot but its running score drops by this, so it cannot win again


class Hypothesis(NamedTuple):
    """One finished caption."""

    score: float  # mean log-probability per token, end included
    ids: list[int]  # words, without start and end


def search(
    step: Callable[[Tensor], Tensor], num_clips: int, beams: int, device: torch.device
) -> list[list[Hypothesis]]:
    """Search all clips at once.

    Args:
        step: maps prefixes (B * K, t) of token ids to log-probabilities (B * K, V) of the next token.
        num_clips: B.
        beams: K.
        device: of the token tensors.

    Returns:
        For each clip its finished hypotheses, best first; at least one.
    """
    prefixes = torch.full((num_clips, beams, 1), START, dtype=torch.long, device=device)
    running = torch.zeros(num_clips, beams, device=device)  # cumulative log-probability
    finished: list[list[Hypothesis]] = [[] for _ in range(num_clips)]
    open_clips = set(range(num_clips))
    for t in range(MAX_WORDS):
        log_probs = step(prefixes.flatten(0, 1)).float().view(num_clips, beams, -1)
        candidates = running[..., None] + log_probs  # (B, K, V)
        if t == 0:
            candidates = candidates[:, :1]  # all beams are the same yet
        vocabulary = candidates.shape[-1]
        running, flat = candidates.flatten(1).topk(beams, dim=1)
        parents, tokens = flat // vocabulary, flat % vocabulary
        prefixes = torch.cat([prefixes.gather(1, parents[..., None].expand(-1, -1, t + 1)), tokens[..., None]], dim=2)
        ended = (tokens == END) | (t == MAX_WORDS - 1)
        _collect(finished, open_clips, prefixes, running / (t + 1), ended)
        running = running - RETIRED * ended
        open_clips -= {clip for clip in open_clips if len(finished[clip]) == beams}
        if not open_clips:
            break
    return [sorted(found, key=lambda h: -h.score) for found in finished]


def _collect(
    finished: list[list[Hypothesis]], open_clips: set[int], prefixes: Tensor, scores: Tensor, ended: Tensor
) -> None:
    for clip, beam in ended.nonzero().tolist():
        if clip in open_clips:
            ids = prefixes[clip, beam, 1:].tolist()
            words = ids[: ids.index(END)] if END in ids else ids
            finished[clip].append(Hypothesis(float(scores[clip, beam]), words))
