"""From word probabilities to captions: beam search, greedy and nucleus sampling, all clips at once.

Shapes: B = clips, K = beams or samples of a clip, V = vocabulary, t = words so far, M = maximum number of words.
The rules of the beam search are those of wsntxxn/AudioCaption, which searches clip by clip; the result is the same.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from train.models.captioner.vocabulary import END, PAD, START

RETIRED = 1000.0  # a finished beam keeps its slot; its running score drops by this, so that it is not chosen again
Step = Callable[[Tensor, Tensor], Tensor]  # words (B * K,), parents (B * K,) -> log-probabilities (B * K, V)


class Decoded(NamedTuple):
    """Captions as ids, each clip's best first; a slot that stayed empty scores -inf."""

    words: Tensor  # (B, K, M) ids up to and with the end word, then PAD
    log_probs: Tensor  # (B, K, M) of each word, 0 beyond the end
    scores: Tensor  # (B, K) mean log-probability, the end word counted


def beam(step: Step, num_clips: int, beams: int, max_words: int, device: torch.device) -> Decoded:
    """Search all clips at once; every step has the same shapes.

    A beam that ends is stored with its mean log-probability; a clip stops when exactly `beams` are stored, or at the last
    word.

    Args:
        step: `DecoderCache.step`, or another function of its type.
        num_clips: B.
        beams: K.
        max_words: M, the end word counted.
        device: of the ids.
    """
    words = torch.full((num_clips, beams), START, device=device)
    parents = torch.arange(beams, device=device).expand(num_clips, beams)
    first_row = torch.arange(num_clips, device=device)[:, None] * beams
    running = torch.full((num_clips, beams), float("-inf"), device=device)  # cumulative log-probability
    running[:, 0] = 0.0  # all beams are equal at the start
    stored, searching = torch.zeros(num_clips, device=device), torch.ones(num_clips, 1, dtype=torch.bool, device=device)
    history: list[tuple[Tensor, ...]] = []
    for t in range(max_words):
        log_probs = step(words.flatten(), (first_row + parents).flatten()).view(num_clips, beams, -1)
        vocabulary = log_probs.shape[2]
        running, flat = (running[..., None] + log_probs).flatten(1).topk(beams, dim=1)
        parents, words = flat // vocabulary, flat % vocabulary
        ended = ((words == END) | (t == max_words - 1)) & searching
        scores = torch.where(ended, running / (t + 1), float("-inf"))
        history.append((words, parents, log_probs.flatten(1).gather(1, flat), scores))
        stored = stored + ended.sum(dim=1)
        running = running - RETIRED * (words == END)
        searching = searching & (stored != beams)[:, None]
        if not searching.any():
            break
    return _trace(history, beams, max_words)


def _trace(history: Sequence[tuple[Tensor, ...]], beams: int, max_words: int) -> Decoded:
    """Pick each clip's best stored beams and walk them back to their first word."""
    words, parents, log_probs, scores = (torch.stack(each, dim=1) for each in zip(*history, strict=True))  # (B, t, K)
    best, chosen = scores.flatten(1).sort(dim=1, descending=True, stable=True)  # of equal scores the earlier wins
    best, last, slot = best[:, :beams], chosen[:, :beams] // beams, chosen[:, :beams] % beams
    traced = torch.full((len(words), beams, max_words), PAD, device=words.device)
    values = torch.zeros(traced.shape, device=words.device)
    for t in reversed(range(words.shape[1])):
        inside = t <= last
        traced[:, :, t] = torch.where(inside, words[:, t].gather(1, slot), PAD)
        values[:, :, t] = torch.where(inside, log_probs[:, t].gather(1, slot), 0.0)
        slot = torch.where(inside, parents[:, t].gather(1, slot), slot)
    return Decoded(traced, values, best)


def sample(step: Step, draws: Tensor, top_p: float, temperature: float) -> Decoded:
    """Sample captions word by word from the nucleus (Holtzman et al., arXiv 1904.09751).

    Args:
        step: as for `beam`.
        draws: (B, K, M) uniform numbers from 0 to 1, one for each word.
        top_p: probability of the nucleus.
        temperature: divides the logits.
    """
    shape, device = draws.shape, draws.device
    rows = torch.arange(shape[0] * shape[1], device=device)
    words = torch.full(rows.shape, START, device=device)
    going = torch.ones(rows.shape, dtype=torch.bool, device=device)
    chosen, values = [], []
    for t in range(shape[2]):
        log_probs = step(words, rows)
        ranked, order = (log_probs / temperature).softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
        before = ranked.cumsum(dim=-1) - ranked  # probability of the words ranked above each
        nucleus = ranked * (before < top_p)
        mass = nucleus.cumsum(dim=-1)
        choice = (mass <= draws.flatten(0, 1)[:, t, None] * mass[:, -1:]).sum(dim=-1, keepdim=True)
        choice = choice.minimum((nucleus > 0).sum(dim=-1, keepdim=True) - 1)  # rounding may step past the last word
        words = torch.where(going, order.gather(1, choice)[:, 0], PAD)
        chosen.append(words)
        values.append(torch.where(going, log_probs.gather(1, words[:, None])[:, 0], 0.0))
        going = going & (words != END)
        if not going.any():
            break
    short = shape[2] - len(chosen)
    ids = torch.nn.functional.pad(torch.stack(chosen, dim=1), (0, short), value=PAD).view(shape)
    log_probs = torch.nn.functional.pad(torch.stack(values, dim=1), (0, short)).view(shape)
    scores, order = (log_probs.sum(dim=2) / _lengths(ids)).sort(dim=1, descending=True, stable=True)
    order = order[..., None].expand(shape)
    return Decoded(ids.gather(1, order), log_probs.gather(1, order), scores)


def uniform(keys: Sequence[str], samples: int, max_words: int, seed: int) -> Tensor:
    """Return the uniform numbers (B, samples, M) of clips; they depend only on seed and key."""
    draws = [
        np.random.default_rng(list(hashlib.sha256(f"{seed}/{key}".encode()).digest())).random((samples, max_words))
        for key in keys
    ]
    return torch.from_numpy(np.stack(draws)).float()


def _lengths(words: Tensor) -> Tensor:
    """Count words (…, M) up to the end word, with it."""
    ended = (words == END).cumsum(dim=-1)
    return ((ended == 0) | ((words == END) & (ended == 1))).sum(dim=-1)
