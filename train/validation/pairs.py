"""Validation of two towers on held-out clips: retrieval both ways, and tags by text prompts; of classifiers, their labels.

Shapes: N = clips, C = classes, D = embedding size.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nnf

from pipeline import audio
from pipeline.errors import JobError
from train import parallel
from train.data import reading
from train.data.loader import Clips
from train.data.reading import CacheConfig
from train.metrics import ranking
from train.metrics.average_precision import mean_average_precision
from train.metrics.zero_shot import PROMPTS
from train.models.clap import TwoTowers
from train.models.classifier import Classifier
from train.trainer.context import Context
from train.trainer.hooks import Validate

BATCH_SIZE = 32
RECALL_AT = (1, 5, 10)


class EmbeddedClips(NamedTuple):
    """The embeddings of clips that could be read."""

    vectors: Tensor  # (N, D), on the CPU
    rows: list[int]  # which of the clips they are
    faults: dict[str, str]  # {key: what is wrong} of the others

    def whole(self) -> Tensor:
        """Return the vectors of all clips. Raises JobError naming one that could not be read."""
        if self.faults:  # figures over clips that change cannot be compared
            key, fault = next(iter(self.faults.items()))
            raise JobError(f"held-out clip {key} cannot be read: {fault}; mend it or leave it out")
        return self.vectors


def measure(clips: Clips, context: Context) -> Validate:
    """Return the function that every rank calls to measure a network.

    It gives `recall_geometric_mean` (of R@1, R@5 and R@10 from text to audio, by which BLAT selects) and the recalls of
    both ways where clips have captions; `zeroshot_top1` where all clips have exactly one tag, else `zeroshot_mAP` where they
    have tags.
    """

    def validate(network: torch.nn.Module) -> dict[str, float]:
        assert isinstance(network, TwoTowers)
        vectors = embed_clips(lambda arrays: network.embed_clips(arrays, audio.SAMPLE_RATE_HZ), clips, context).whole()
        vectors = vectors.to(network.logit_scale.device)
        found = retrieval(vectors, network, clips.texts) if any(clips.texts) else {}
        return found | (zero_shot(vectors, network, clips.tags) if any(clips.tags) else {})

    return validate


def measure_labels(clips: Clips, context: Context) -> Validate:
    """Return the function that measures a classifier: `accuracy` where its labels exclude each other, else `mAP`."""

    def validate(network: torch.nn.Module) -> dict[str, float]:
        assert isinstance(network, Classifier)
        scores = embed_clips(
            lambda arrays: network.encode_clips(arrays, audio.SAMPLE_RATE_HZ).outputs, clips, context
        ).whole()
        return _classification(scores, network.labels, clips.tags, network.config.exclusive, ("accuracy", "mAP"))

    return validate


def retrieval(audio_vectors: Tensor, network: TwoTowers, texts: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return the recalls of clips (N, D) with their captions: each caption is a query, and a clip's best caption counts."""
    clip_index = torch.tensor([row for row, own in enumerate(texts) for _ in own], device=audio_vectors.device)
    text_vectors = network.embed_texts([text for own in texts for text in own])
    captioned, every = clip_index.unique(), torch.arange(len(audio_vectors), device=audio_vectors.device)
    to_audio = ranking.retrieve(text_vectors, audio_vectors, clip_index, every)
    to_text = ranking.retrieve(audio_vectors[captioned], text_vectors, captioned, clip_index)
    found = {f"text_to_audio_R@{k}": float(to_audio.within(k).mean()) for k in RECALL_AT}
    mean = torch.tensor(list(found.values())).clamp(min=1e-6).log().mean().exp()
    found |= {f"audio_to_text_R@{k}": float(to_text.within(k).mean()) for k in RECALL_AT}
    return {"recall_geometric_mean": float(mean), **found}


def zero_shot(audio_vectors: Tensor, network: TwoTowers, tags: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return how well the mean of three prompts finds the tags of clips (N, D)."""
    names = sorted({tag for own in tags for tag in own})
    prompts = [network.embed_texts([prompt.format(name.lower()) for name in names]) for prompt in PROMPTS]
    scores = audio_vectors @ nnf.normalize(torch.stack(prompts).mean(dim=0), dim=1).T  # (N, C)
    exclusive = all(len(set(own)) == 1 for own in tags)
    return _classification(scores, names, tags, exclusive, ("zeroshot_top1", "zeroshot_mAP"))


def _classification(
    scores: Tensor, names: Sequence[str], tags: Sequence[Sequence[str]], exclusive: bool, metrics: tuple[str, str]
) -> dict[str, float]:
    """Return the accuracy of scores (N, C) of exclusive classes, or else the mAP, under the first or the second name."""
    truth, values = np.array([[name in own for name in names] for own in tags]), scores.cpu().numpy()
    if exclusive:
        return {metrics[0]: float(ranking.top_k(values, truth.argmax(axis=1), 1).mean())}
    return {metrics[1]: mean_average_precision(values, truth)}


@torch.no_grad()
def embed_clips(embed: Callable[[list[np.ndarray]], Tensor], clips: Clips, context: Context) -> EmbeddedClips:
    """Return the embeddings of whole clips, of which every rank embeds its share; the same on every rank."""
    own = range(context.rank, len(clips.keys), context.world_size)
    kept: list[int] = []
    parts: list[Tensor] = []
    faults: dict[str, str] = {}
    for first in range(0, len(own), BATCH_SIZE):
        rows = own[first : first + BATCH_SIZE]
        with ThreadPoolExecutor(reading.THREADS) as pool:
            read = dict(zip(rows, pool.map(lambda row: _read(clips, row), rows), strict=True))
        faults |= {clips.keys[row]: fault for row, fault in read.items() if isinstance(fault, str)}
        if good := {row: samples for row, samples in read.items() if isinstance(samples, np.ndarray)}:
            kept += good
            parts.append(embed(list(good.values())).cpu())
    share = torch.cat(parts) if parts else torch.zeros(0, 0)  # sent as one: each row would take all of it along
    vectors: dict[int, Tensor] = {}
    for their_rows, their_vectors, their_faults in parallel.gather_objects((kept, share, faults)):
        vectors |= dict(zip(their_rows, their_vectors, strict=True))
        faults |= their_faults
    found = sorted(vectors)
    return EmbeddedClips(torch.stack([vectors[row] for row in found]) if found else share, found, faults)


def _read(clips: Clips, row: int) -> np.ndarray | str:
    try:
        return reading.read(clips.location(row), CacheConfig())
    except audio.AudioError as error:
        return str(error)
