"""Checkpoint + clips -> embeddings or captions, in this process: the same for a clip whatever the batch.

Shapes: N = clips that could be read, D = embedding size.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from pipeline import sources
from pipeline.errors import InputError, JobError
from pipeline.sources.clip import Clip
from train.models.captioner.decoding import Decoding
from train.models.captioner.model import TagGuidedCaptioner
from train.models.clap import TwoTowers

log = logging.getLogger(__name__)
DECODERS = 2


class Embedded(NamedTuple):
    """Audio embeddings and the clips they belong to."""

    vectors: np.ndarray  # (N, D) float32, unit length
    clips: list[Clip]
    missing: dict[str, str]  # key -> reason, of clips that could not be read


class Written(NamedTuple):
    """Captions of every kind of guidance and the clips they belong to."""

    texts: dict[str, list[str]]  # guidance -> a caption for each clip; '' where the model writes none
    tags: dict[str, list[list[str]]]  # guidance -> the tags that guided each clip
    clips: list[Clip]
    missing: dict[str, str]


def embed_audio(model: TwoTowers, clips: Sequence[Clip], batch_size: int) -> Embedded:
    """Embed every clip that can be read, by `TwoTowers.embed_clips`."""
    vectors = [model.embed_clips([]).cpu().numpy()]
    kept: list[Clip] = []
    missing: dict[str, str] = {}
    for rows, samples in batches(clips, model.sample_rate_hz, batch_size, missing):
        vectors.append(model.embed_clips(samples).cpu().numpy())
        kept += [clips[row] for row in rows]
    return Embedded(finite(np.concatenate(vectors)), kept, missing)


def caption(
    model: TagGuidedCaptioner,
    clips: Sequence[Clip],
    given: dict[str, list[tuple[str, ...]] | None],
    decoding: Decoding,
    tag_threshold: float,
    batch_size: int,
) -> Written:
    """Caption every clip that can be read, under several kinds of guidance; tags of None are those the model predicts."""
    found = Written({name: [] for name in given}, {name: [] for name in given}, [], {})
    for rows, samples in batches(clips, model.sample_rate_hz, batch_size, found.missing):
        encoded_audio = model.encode_audio_clips(samples)
        for name, tags in given.items():
            if tags is None:
                hot = model.predict_tags(encoded_audio, tag_threshold)
            else:
                hot = model.multi_hot([tags[row] for row in rows]).to(encoded_audio.memory.device)
            captions = model.generate(encoded_audio, hot, decoding, [clips[row].key for row in rows])
            found.texts[name].extend(each[0].text if each else "" for each in captions)
            used = [[tag for tag, on in zip(model.tags, row, strict=True) if on] for row in hot.tolist()]
            found.tags[name].extend(used)
        found.clips.extend(clips[row] for row in rows)
    return found


def batches(
    clips: Sequence[Clip], rate_hz: int, batch_size: int, missing: dict[str, str]
) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """Yield rows and samples of the clips that can be read, in order; the others go to `missing`."""
    started = logged_at = time.monotonic()
    with ThreadPoolExecutor(DECODERS) as pool:
        for first in range(0, len(clips), batch_size):
            rows = range(first, min(first + batch_size, len(clips)))
            decoded = list(pool.map(lambda row: sources.read_or_reason(clips[row].location, rate_hz), rows))
            missing |= {clips[r].key: why for r, why in zip(rows, decoded, strict=True) if isinstance(why, str)}
            good = [
                (row, samples) for row, samples in zip(rows, decoded, strict=True) if isinstance(samples, np.ndarray)
            ]
            if good:
                yield [row for row, _ in good], [samples for _, samples in good]
            if time.monotonic() - logged_at > 10:
                logged_at = time.monotonic()
                log.info("%d of %d clips, %.0f s", first + len(rows), len(clips), logged_at - started)
    if clips and len(missing) == len(clips):
        raise JobError(f"none of {len(clips)} clips could be read: {missing}")


def device(name: str) -> torch.device:
    """Return a torch device. Raises InputError naming --device when there is no such one here."""
    if name == "cpu" or (name.partition(":")[0] == "cuda" and torch.cuda.is_available()):
        return torch.device(name)
    raise InputError("--device", name, "use cpu, or cuda on a machine with a GPU")


def embed_text(model: TwoTowers, texts: Sequence[str]) -> np.ndarray:
    """Embed texts; (len(texts), D) float32, unit length. See `TwoTowers.embed_texts`."""
    return finite(model.embed_texts(texts).cpu().numpy())


def finite(vectors: np.ndarray) -> np.ndarray:
    """Return embeddings as they are. Raises JobError when one is not finite."""
    if not np.isfinite(vectors).all():
        raise JobError("the model gives embeddings that are not finite; its training went wrong")
    return vectors
