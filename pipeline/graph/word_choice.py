"""Greedy choice and nucleus sampling for `generate` of transformers, with the log-probability of every chosen token.

Draws depend only on seed and clip, so that a clip's caption does not depend on the batch. transformers' own sampling draws
for the batch as a whole.
"""

import torch
from torch import Tensor
from transformers import LogitsProcessor


class WordChoice(LogitsProcessor):
    """Chooses the next token of every row: `generate` sees no other. It has to be the last processor."""

    def __init__(self, draws: Tensor | None = None, top_p: float = 1.0, temperature: float = 1.0) -> None:
        """Prepare to choose.

        Args:
            draws: (B, M) uniform numbers from 0 to 1, one for each token; None takes the most probable token.
            top_p: probability of the nucleus.
            temperature: divides the logits before sampling.
        """
        self.draws, self.top_p, self.temperature = draws, top_p, temperature
        self.log_probs: list[Tensor] = []  # (B,) for each token so far

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return (B, V) logits that leave one token of each row."""
        log_probs = scores.float().log_softmax(dim=-1)
        if self.draws is None:
            choice = log_probs.argmax(dim=-1, keepdim=True)
        else:
            choice = self._sample(log_probs, self.draws[:, len(self.log_probs), None])
        self.log_probs.append(log_probs.gather(1, choice)[:, 0])
        return torch.full_like(scores, -torch.inf).scatter(1, choice, 0.0)

    def scores(self, num_tokens: list[int]) -> list[float]:
        """Return the mean log-probability of the first tokens of each row."""
        found = torch.stack(self.log_probs, dim=1)
        return [float(row[:count].mean()) for row, count in zip(found, num_tokens, strict=True)]

    def _sample(self, log_probs: Tensor, draw: Tensor) -> Tensor:
        ranked, order = (log_probs / self.temperature).softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
        before = ranked.cumsum(dim=-1) - ranked  # probability of the tokens ranked above each
        nucleus = ranked * (before < self.top_p)
        mass = nucleus.cumsum(dim=-1)
        rank = (mass <= draw * mass[:, -1:]).sum(dim=-1, keepdim=True)
        rank = rank.minimum((nucleus > 0).sum(dim=-1, keepdim=True) - 1)  # rounding may step past the last token
        return order.gather(1, rank)
