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

from pipeline import audio, storage
from pipeline.sources import Clip
from train.models.clap import Clap

log = logging.getLogger("eval.embed")
DECODERS = 2


class Embedded(NamedTuple):
    """Audio embeddings and the clips they belong to."""

    vectors: np.ndarray  # (N, D) float32, unit length
    clips: list[Clip]
    missing: dict[str, str]  # key -> reason, of clips that could not be read


def embed_audio(model: Clap, clips: Sequence[Clip], batch_size: int, device: torch.device) -> Embedded:
    """Embed every clip: windows of the model's fixed length, zero-padded, averaged by their true length."""
    size, rate_hz = model.clip_samples, model.config.audio.sample_rate_hz
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
                vectors.append(_embed_windows(model, [samples for _, samples in good], size, device))
                kept += [clip for clip, _ in good]
            if time.monotonic() - told > 10:
                told = time.monotonic()
                log.info("embedded %d of %d clips, %.0f s", first + len(rows), len(clips), told - started)
    width = model.config.joint_dim
    return Embedded(np.concatenate(vectors) if vectors else np.zeros((0, width), np.float32), kept, missing)


def embed_text(model: Clap, texts: Sequence[str], device: torch.device, batch_size: int = 256) -> np.ndarray:
    """Embed texts; (len(texts), D) float32, unit length."""
    with torch.no_grad():
        parts = [
            model.encode_text(*(tensor.to(device) for tensor in model.tokenize(texts[i : i + batch_size]))).cpu()
            for i in range(0, len(texts), batch_size)
        ]
    return torch.cat(parts).numpy()


def _decode(clip: Clip, rate_hz: int) -> np.ndarray | str:
    try:
        return audio.decode(storage.read(clip.uri), rate_hz)
    except audio.AudioError as error:
        return error.reason
    except OSError:
        return "missing"


def _embed_windows(model: Clap, clips: list[np.ndarray], size: int, device: torch.device) -> np.ndarray:
    windows = [
        (i, samples[start : start + size]) for i, samples in enumerate(clips) for start in range(0, len(samples), size)
    ]
    owner = torch.tensor([i for i, _ in windows])
    length = torch.tensor([len(window) for _, window in windows])
    waveform = torch.from_numpy(np.stack([audio.fit(window, size) for _, window in windows]))
    with torch.no_grad():
        vectors = model.encode_audio(waveform.to(device), length.to(device)).cpu()
    total = torch.zeros(len(clips), vectors.shape[1]).index_add_(0, owner, vectors * length[:, None])
    return torch.nn.functional.normalize(total, dim=-1).numpy()
