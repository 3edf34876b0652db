"""Which text fits which clip, where every text fits as many clips as any other: scores -> probabilities.

Shapes: N = clips, T = texts, E = embedding size, k = neighbours.
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
TEMPERATURE = 0.25  # of the softmax over texts, in standard deviations of the scores
OWN_SHARE = 0.2  # of a clip's probabilities that its neighbours do not change
SMOOTHED_TEMPERATURE = 0.5  # sharpens what smoothing has blurred
ROUNDS = 200  # of balancing: the shares of texts are then equal to a few digits
SPREADS = 30  # of smoothing: 0.8 ** 30 of the way is left
BLOCK = 1024  # clips compared with all others at a time
TINY = 1e-6


def assign(scores: Array, embeddings: Array, neighbours: int) -> Array:
    """Return probabilities (N, T) of the texts of each clip, float64; rows sum to 1, columns to N / T.

    Sinkhorn's iteration (Cuturi 2013, arXiv 1306.0895) balances them, as in SwAV (Caron et al. 2020, arXiv 2006.09882).

    Args:
        scores: (N, T) how well each text fits each clip, in any unit.
        embeddings: (N, E) of the clips; clips that are close get similar texts.
        neighbours: k, by which each clip is smoothed; 0 leaves it as it is.
    """
    probabilities = balance(np.asarray(scores, np.float64) / (TEMPERATURE * max(float(np.std(scores)), TINY)))
    if not neighbours:
        return probabilities
    return balance(np.log(smooth(probabilities, embeddings, neighbours) + TINY) / SMOOTHED_TEMPERATURE)


def balance(logits: Array) -> Array:
    """Return the softmax (N, T) of logits to which each text adds a number, so that all texts have the same sum."""
    added = np.zeros(logits.shape[1])
    for _ in range(ROUNDS):
        shares = _softmax(logits + added).mean(axis=0)
        added -= np.log(np.maximum(shares, np.finfo(float).tiny) * len(added))
    return _softmax(logits + added)


def smooth(probabilities: Array, embeddings: Array, neighbours: int) -> Array:
    """Return probabilities (N, T) averaged with those of each clip's neighbours, and of theirs, and so on.

    After Zhou et al. 2003, "Learning with local and global consistency", with rows that sum to 1.
    """
    near, weights = _neighbours(embeddings, min(neighbours, len(embeddings) - 1))
    found = probabilities
    for _ in range(SPREADS):
        spread = sum(weight[:, None] * found[closest] for weight, closest in zip(weights.T, near.T, strict=True))
        found = (1 - OWN_SHARE) * spread + OWN_SHARE * probabilities
    return found


def _neighbours(embeddings: Array, count: int) -> tuple[npt.NDArray[np.int64], Array]:
    """Return the closest clips of each (N, k) by the cosine of embeddings around their mean, and weights that sum to 1."""
    centred = embeddings - embeddings.mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), TINY)
    near, weights = [], []
    for first in range(0, len(unit), BLOCK):
        cosines = unit[first : first + BLOCK] @ unit.T
        rows = np.arange(len(cosines))
        cosines[rows, first + rows] = -np.inf  # no clip is its own neighbour
        closest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        near.append(closest)
        weights.append(np.maximum(np.take_along_axis(cosines, closest, axis=1), TINY) ** 3)
    joined = np.concatenate(weights)
    return np.concatenate(near), joined / joined.sum(axis=1, keepdims=True)


def counts(probabilities: Array, total: int) -> npt.NDArray[np.int64]:
    """Return how often (N, T) each clip has each text: `total` times its probabilities, rounded so that rows sum to it."""
    exact = probabilities * total
    found = np.floor(exact).astype(np.int64)
    order = np.argsort(found - exact, axis=1, kind="stable")  # the largest remainders first
    missing = total - found.sum(axis=1, keepdims=True)
    np.put_along_axis(
        found, order, np.take_along_axis(found, order, axis=1) + (np.arange(len(found.T)) < missing), axis=1
    )
    return found


def _softmax(logits: Array) -> Array:
    grown = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(grown / grown.sum(axis=1, keepdims=True))
