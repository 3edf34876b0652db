"""From word probabilities to captions: beam search, greedy and nucleus sampling, all clips at once.

Shapes: B = clips, K = beams or samples of a clip, V = vocabulary, t = words so far, M = maximum number of words.
The rules of the beam search are those of wsntxxn/AudioCaption, which searches clip by clip; the result is the same.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from train.models.captioner.vocabulary import END, PAD, START

RETIRED = 1000.0  # a finished beam keeps its slot; its running score drops by this, so that it is not chosen again
STOP_EVERY = 4  # words between two questions whether all clips have stopped: each waits for the device
Step = Callable[[Tensor, Tensor], Tensor]  # words (B * K,), parents (B * K,) -> log-probabilities (B * K, V)


class Decoded(NamedTuple):
    """Captions as ids, each clip's best first; a slot that stayed empty scores -inf."""

    words: Tensor  # (B, K, M) ids up to and with the end word, then PAD
    log_probs: Tensor  # (B, K, M) of each word, 0 beyond the end
    scores: Tensor  # (B, K) mean log-probability, the end word counted


class Search(Protocol):
    """A search between two words. `advance` and `result` never wait for the device: a CUDA graph can hold them."""

    max_words: int  # M

    def advance(self) -> None:
        """Choose the next word of every row. A clip that has stopped takes nothing more."""
        ...

    def stopped(self) -> bool:
        """Return whether all clips have stopped; waits for the device."""
        ...

    def result(self) -> Decoded:
        """Return the captions."""
        ...


def run(search: Search, advance: Callable[[], None] | None = None) -> None:
    """Advance a search until all clips have stopped, or by `max_words`.

    Args:
        search: a search at its start.
        advance: what is called instead of `search.advance`, such as the replay of its graph.
    """
    advance = advance or search.advance
    for t in range(1, search.max_words + 1):
        advance()
        if t % STOP_EVERY == 0 and search.stopped():
            break


class Beam:
    """Beam search; greedy where K is 1.

    A beam that ends is stored with its mean log-probability; a clip stops when exactly K are stored, or at the last word.
    """

    def __init__(self, step: Step, num_clips: int, beams: int, max_words: int, device: torch.device) -> None:
        """Take `DecoderCache.step`, or another function of its type; B, K and M; and the device of the ids."""
        self.step, self.max_words, self.beams = step, max_words, beams
        shape = (num_clips, beams)
        self.first_row = torch.arange(num_clips, device=device)[:, None] * beams
        self.parents = self.first_row + torch.arange(beams, device=device)  # (B, K) rows whose prefixes go on
        self.words = torch.full(shape, START, device=device)
        self.running = torch.full(shape, float("-inf"), device=device)  # cumulative log-probability
        self.running[:, 0].fill_(0.0)  # all beams are equal at the start
        self.num_stored = torch.zeros(num_clips, dtype=torch.long, device=device)
        self.searching = torch.ones(num_clips, dtype=torch.bool, device=device)
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        self.history = (  # (M, B, K) of each word: ids, parents from 0 to K - 1, log-probabilities, sums where one ends
            torch.full((max_words, *shape), PAD, device=device),
            torch.zeros(max_words, *shape, dtype=torch.long, device=device),
            torch.zeros(max_words, *shape, device=device),
            torch.full((max_words, *shape), float("-inf"), device=device),
        )

    def advance(self) -> None:
        """See `Search.advance`."""
        log_probs = self.step(self.words.flatten(), self.parents.flatten())
        width = min(self.beams, log_probs.shape[1])  # the best K of a clip are among the best K of its rows
        best, ids = (each.view(len(self.words), -1) for each in log_probs.topk(width, dim=1))  # (B, K * width)
        total = (self.running[..., None] + best.unflatten(1, (-1, width))).flatten(1)
        running, chosen = total.topk(self.beams, dim=1)
        parents, words = chosen // width, ids.gather(1, chosen)
        ends = words == END
        ended = (ends | (self.position == self.max_words - 1)) & self.searching[:, None]
        sums = torch.where(ended, running, float("-inf"))
        for held, each in zip(self.history, (words, parents, best.gather(1, chosen), sums), strict=True):
            held.index_copy_(0, self.position, each[None])
        self.num_stored.add_(ended.sum(dim=1))
        self.searching.logical_and_(self.num_stored != self.beams)
        torch.add(running, ends, alpha=-RETIRED, out=self.running)
        torch.add(self.first_row, parents, out=self.parents)
        self.words.copy_(words)
        self.position.add_(1)

    def stopped(self) -> bool:
        """See `Search.stopped`."""
        return not bool(self.searching.any())

    def result(self) -> Decoded:
        """Pick each clip's best stored beams and walk them back to their first word."""
        words, parents, log_probs, sums = self.history
        position = torch.arange(self.max_words, device=sums.device)[:, None, None]
        scores = (sums / (position + 1)).transpose(0, 1)  # (B, M, K)
        best, chosen = scores.flatten(1).sort(dim=1, descending=True, stable=True)  # of equal scores the earlier wins
        best, chosen = best[:, : self.beams], chosen[:, : self.beams]
        last, slot = chosen // self.beams, chosen % self.beams
        slots = []  # (B, K) of each word, from the last to the first
        for t in reversed(range(self.max_words)):
            slots.append(slot)
            slot = torch.where(t <= last, parents[t].gather(1, slot), slot)
        walked, inside = torch.stack(slots[::-1]), position <= last
        ids = torch.where(inside, words.gather(2, walked), PAD)
        values = torch.where(inside, log_probs.gather(2, walked), 0.0)
        return Decoded(ids.permute(1, 2, 0), values.permute(1, 2, 0), best)


class Nucleus:
    """Sampling word by word from the nucleus (Holtzman et al., arXiv 1904.09751)."""

    def __init__(self, step: Step, draws: Tensor, top_p: float, temperature: float) -> None:
        """Prepare to sample.

        Args:
            step: as for `Beam`.
            draws: (B, K, M) uniform numbers from 0 to 1, one for each word.
            top_p: probability of the nucleus.
            temperature: divides the logits.
        """
        self.step, self.top_p, self.temperature = step, top_p, temperature
        self.shape, self.max_words, device = draws.shape, draws.shape[2], draws.device
        self.draws = draws.flatten(0, 1)  # (B * K, M)
        self.rows = torch.arange(len(self.draws), device=device)
        self.words = torch.full(self.rows.shape, START, device=device)
        self.going = torch.ones(self.rows.shape, dtype=torch.bool, device=device)
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        self.chosen = torch.full(self.draws.shape, PAD, device=device)
        self.values = torch.zeros(self.draws.shape, device=device)

    def advance(self) -> None:
        """See `Search.advance`."""
        log_probs = self.step(self.words, self.rows)
        ranked, order = (log_probs / self.temperature).softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
        before = ranked.cumsum(dim=-1) - ranked  # probability of the words ranked above each
        nucleus = ranked * (before < self.top_p)
        mass = nucleus.cumsum(dim=-1)
        draw = self.draws.index_select(1, self.position)
        choice = (mass <= draw * mass[:, -1:]).sum(dim=-1, keepdim=True)
        choice = choice.minimum((nucleus > 0).sum(dim=-1, keepdim=True) - 1)  # rounding may step past the last word
        words = torch.where(self.going[:, None], order.gather(1, choice), PAD)
        values = torch.where(self.going[:, None], log_probs.gather(1, words), 0.0)
        self.chosen.index_copy_(1, self.position, words)
        self.values.index_copy_(1, self.position, values)
        self.going.logical_and_(words[:, 0] != END)
        self.words.copy_(words[:, 0])
        self.position.add_(1)

    def stopped(self) -> bool:
        """See `Search.stopped`."""
        return not bool(self.going.any())

    def result(self) -> Decoded:
        """Sort the samples of each clip by their mean log-probability."""
        ids, log_probs = self.chosen.view(self.shape), self.values.view(self.shape)
        scores, order = (log_probs.sum(dim=2) / _lengths(ids)).sort(dim=1, descending=True, stable=True)
        order = order[..., None].expand(self.shape)
        return Decoded(ids.gather(1, order), log_probs.gather(1, order), scores)


def uniform(keys: Sequence[str], samples: int, max_words: int, seed: int) -> Tensor:
    """Return the uniform numbers (B, samples, M) of clips; they depend only on seed and key."""
    draws = [np.random.default_rng(_entropy(f"{seed}/{key}")).random((samples, max_words)) for key in keys]
    return torch.from_numpy(np.stack(draws)).float()


def _entropy(name: str) -> npt.NDArray[np.uint32]:
    """Return a seed for numpy; the list of the same numbers gives the same draws, and takes four times as long."""
    return np.frombuffer(hashlib.sha256(name.encode()).digest(), np.uint8).astype(np.uint32)


def _lengths(words: Tensor) -> Tensor:
    """Count words (…, M) up to the end word, with it."""
    ended = (words == END).cumsum(dim=-1)
    return ((ended == 0) | ((words == END) & (ended == 1))).sum(dim=-1)
