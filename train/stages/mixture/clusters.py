"""Clips by what their captions describe: k-means over text embeddings.

Shapes: N = clips, K = clusters, D = embedding size.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from train.pretrained import Embedder

STARTS = 8  # of k-means; the one with the closest centres counts
ITERATIONS = 50
TEXTS = 256  # embedded at a time


def embed(texts: Sequence[Sequence[str]], model: str) -> npt.NDArray[np.float32]:
    """Return the mean embedding (N, D) of the captions of each clip, of length 1, by the text tower of a checkpoint."""
    embedder = Embedder.from_pretrained(model)
    flat = sorted({text for own in texts for text in own})
    parts = [embedder.embed_text(flat[start : start + TEXTS]).numpy() for start in range(0, len(flat), TEXTS)]
    vectors, row = np.concatenate(parts), {text: index for index, text in enumerate(flat)}
    means = np.stack([vectors[[row[text] for text in own]].mean(axis=0) for own in texts])
    unit: npt.NDArray[np.float32] = means / np.linalg.norm(means, axis=1, keepdims=True)
    return unit


def assign(vectors: npt.NDArray[np.float32], count: int, seed: int) -> npt.NDArray[np.int32]:
    """Return the cluster (N,) of each vector (N, D), the largest cluster first; at most as many as different vectors."""
    from scipy.cluster.vq import kmeans2  # here: its import takes long, and every command loads this module

    rng, count = np.random.default_rng(seed), min(count, len(np.unique(vectors, axis=0)))
    found = [kmeans2(vectors, count, ITERATIONS, minit="++", rng=rng) for _ in range(STARTS)]
    centres, labels = min(found, key=lambda each: float(((vectors - each[0][each[1]]) ** 2).sum()))
    sizes = np.bincount(labels, minlength=len(centres))
    order = np.argsort(-sizes, kind="stable")
    ranks = np.empty(len(centres), np.int32)
    ranks[order] = np.arange(len(centres))
    numbered: npt.NDArray[np.int32] = ranks[labels]
    return numbered
