"""Checkpoint + clips -> embeddings, in this process: the same vector for a clip whatever the batch.

Shapes: N = clips that could be read, D = embedding size.
"""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from pipeline import audio, sources
from pipeline.cli import InputError, JobError
from pipeline.clip import Clip
from train.models.clap import Clap

log = logging.getLogger("eval.embed")
DECODERS = 2


class Embedded(NamedTuple):
    """Audio embeddings and the clips they belong to."""

    vectors: np.ndarray  # (N, D) float32, unit length
    clips: list[Clip]
    missing: dict[str, str]  # key -> reason, of clips that could not be read


def embed_audio(model: Clap, clips: Sequence[Clip], batch_size: int) -> Embedded:
    """Embed every clip that can be read, by `Clap.embed_clips`."""
    rate_hz = model.sample_rate_hz
    vectors: list[np.ndarray] = []
    kept: list[Clip] = []
    missing: dict[str, str] = {}
    started = told = time.monotonic()
    with ThreadPoolExecutor(DECODERS) as pool:
        for first in range(0, len(clips), batch_size):
            rows = clips[first : first + batch_size]
            decoded = list(pool.map(lambda clip: _decode(clip, rate_hz), rows))
            good = [
                (clip, samples) for clip, samples in zip(rows, decoded, strict=True) if isinstance(samples, np.ndarray)
            ]
            missing |= {c.key: reason for c, reason in zip(rows, decoded, strict=True) if isinstance(reason, str)}
            if good:
                vectors.append(model.embed_clips([samples for _, samples in good]).cpu().numpy())
                kept += [clip for clip, _ in good]
            if time.monotonic() - told > 10:
                told = time.monotonic()
                log.info("embedded %d of %d clips, %.0f s", first + len(rows), len(clips), told - started)
    if not kept:
        raise JobError(f"none of {len(clips)} clips could be read: {missing}")
    return Embedded(_finite(np.concatenate(vectors)), kept, missing)


def device(name: str) -> torch.device:
    """Return a torch device. Raises InputError naming --device when there is no such one here."""
    if name == "cpu" or (name.partition(":")[0] == "cuda" and torch.cuda.is_available()):
        return torch.device(name)
    raise InputError("--device", name, "use cpu, or cuda on a machine with a GPU")


def embed_text(model: Clap, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
    """Embed texts; (len(texts), D) float32, unit length."""
    parts = [model.embed_texts(texts[i : i + batch_size]).cpu() for i in range(0, len(texts), batch_size)]
    return _finite(torch.cat(parts).numpy())


def _finite(vectors: np.ndarray) -> np.ndarray:
    if not np.isfinite(vectors).all():
        raise JobError("the model gives embeddings that are not finite; its training went wrong")
    return vectors


def _decode(clip: Clip, rate_hz: int) -> np.ndarray | str:
    try:
        return sources.read_samples(clip, rate_hz)
    except audio.AudioError as error:
        return error.reason
