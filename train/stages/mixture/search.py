"""Where to look for a better mixture, from the scores of those that were tried.

CLIMB (Diao et al., arXiv 2504.13161) in small: mixtures are drawn, small models score them, a regression predicts the
score of others, and the best predicted ones are tried next. Its regression is a forest of boosted trees over hundreds of
mixtures. Here it is kernel ridge regression, which tens of mixtures suffice for.

Shapes: K = clusters, T = mixtures that were tried, C = candidates.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
CANDIDATES = 4_096  # mixtures that the regression compares
BEST = 10  # of the candidates, so many times the number that is asked for are drawn from
FLOOR = 0.1  # part of every drawn mixture that is uniform, so that no cluster is left out
LENGTH = (
    0.3  # distance beyond which the score of one mixture says little of another; the largest distance is the root of 2
)
NOISE = 0.3  # variance of a score by chance, relative to that between mixtures


class Tried(NamedTuple):
    """Mixtures with their scores."""

    shares: Array  # (T, K), rows add up to 1
    scores: Array  # (T,), higher is better


def first(rng: np.random.Generator, proportional: Array, count: int) -> Array:
    """Return the mixtures (count, K) of the first round: proportional, uniform, and others drawn at random."""
    uniform = np.full_like(proportional, 1 / len(proportional))
    return np.concatenate([[proportional, uniform], _draw(rng, len(proportional), count)])[:count]


def following(rng: np.random.Generator, tried: Tried, count: int) -> Array:
    """Return the mixtures (count, K) of a later round: some of the best by prediction, so that they also differ."""
    candidates = _draw(rng, tried.shares.shape[1], CANDIDATES)
    best = np.argsort(-predict(tried, candidates), kind="stable")[: BEST * count]
    return candidates[rng.choice(best, count, replace=False)]


def final(rng: np.random.Generator, tried: Tried) -> Array:
    """Return the mixture (K,) with the best prediction, of those that were tried and new ones."""
    candidates = np.concatenate([tried.shares, _draw(rng, tried.shares.shape[1], CANDIDATES)])
    best: Array = candidates[np.argmax(predict(tried, candidates))]
    return best


def predict(tried: Tried, candidates: Array) -> Array:
    """Return the predicted scores (C,) of candidates (C, K); far from everything that was tried, the mean score."""
    mean = tried.scores.mean()
    among = _kernel(tried.shares, tried.shares) + NOISE * np.eye(len(tried.scores))
    predicted: Array = mean + _kernel(candidates, tried.shares) @ np.linalg.solve(among, tried.scores - mean)
    return predicted


def _draw(rng: np.random.Generator, clusters: int, count: int) -> Array:
    """Return mixtures (count, K) drawn evenly from all there are, with a part that is uniform."""
    return FLOOR / clusters + (1 - FLOOR) * rng.dirichlet(np.ones(clusters), count)


def _kernel(a: Array, b: Array) -> Array:
    """Return the similarities (A, B) of mixtures (A, K) and (B, K), by the distance of the roots of their shares."""
    distances = ((np.sqrt(a)[:, None] - np.sqrt(b)[None]) ** 2).sum(axis=2)
    similarity: Array = np.exp(-distances / (2 * LENGTH**2))
    return similarity
