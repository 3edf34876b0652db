"""The processor of published two towers: waveforms and texts -> what the model takes.

Shapes: N = clips, T = samples, M = texts, L = tokens.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin, SequenceFeatureExtractor
from transformers.utils import logging

logger = logging.get_logger(__name__)
INT16_SCALE = 32_768.0


class BlatFeatureExtractor(SequenceFeatureExtractor):
    """Mono waveforms of any length -> one zero-padded batch with the true lengths; the model computes the rest."""

    model_input_names = ["input_values", "num_samples"]

    def __init__(self, sampling_rate: int = 32_000, **kwargs: Any) -> None:
        kwargs.pop("feature_size", None), kwargs.pop("padding_value", None)
        super().__init__(feature_size=1, sampling_rate=sampling_rate, padding_value=0.0, **kwargs)

    def __call__(
        self, raw_speech: Any, sampling_rate: int | None = None, return_tensors: str | None = None, **_: Any
    ) -> BatchFeature:
        """Return `input_values` (N, T) float32 and `num_samples` (N,).

        Args:
            raw_speech: one waveform (T,) or a list of N, as arrays, tensors or lists; int16, or float in [-1, 1].
            sampling_rate: their rate, Hz; it must be the model's.
            return_tensors: "pt" or "np".

        Raises:
            ValueError: when the rate is another one, a waveform is empty, or it has more than one channel.
        """
        if sampling_rate is None:
            logger.warning_once(f"no sampling_rate is given: {self.sampling_rate:,} Hz is assumed")
        elif sampling_rate != self.sampling_rate:
            raise ValueError(
                f"this model takes audio at {self.sampling_rate} Hz, not at {sampling_rate} Hz; resample it first"
            )
        clips = [_mono(clip) for clip in _clips(raw_speech)]
        padded = np.zeros((len(clips), max(map(len, clips))), np.float32)
        for row, clip in zip(padded, clips, strict=True):
            row[: len(clip)] = clip
        lengths = np.array([len(clip) for clip in clips])
        return BatchFeature({"input_values": padded, "num_samples": lengths}, tensor_type=return_tensors)


class BlatProcessor(ProcessorMixin):
    """Waveforms, texts or both -> the inputs of `BlatModel`."""

    def __init__(self, feature_extractor: Any, tokenizer: Any) -> None:
        super().__init__(feature_extractor, tokenizer)

    def __call__(  # type: ignore[override]
        self,
        text: str | Sequence[str] | None = None,
        audio: Any = None,
        sampling_rate: int | None = None,
        return_tensors: str | None = "pt",
        **_: Any,
    ) -> BatchFeature:
        """Return `input_ids` and `attention_mask`, both (M, L), and the fields of `BlatFeatureExtractor`.

        Texts are cut and padded to one length: a text gets the same embedding in every batch.

        Raises:
            ValueError: when there is neither text nor audio; otherwise as `BlatFeatureExtractor`.
        """
        if text is None and audio is None:
            raise ValueError("give text, audio or both")
        found: dict[str, Any] = {}
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            found |= self.tokenizer(texts, padding="max_length", truncation=True, return_tensors=return_tensors)
        if audio is not None:
            found |= self.feature_extractor(audio, sampling_rate=sampling_rate, return_tensors=return_tensors)
        return BatchFeature(found)


def _clips(given: Any) -> list[Any]:
    """Return the waveforms of one, of a list, or of a batch (N, T)."""
    if isinstance(given, list | tuple):
        clips = [given] if given and np.ndim(given[0]) == 0 else list(given)
    else:
        clips = [given] if np.ndim(given) == 1 else list(given)
    if not clips:
        raise ValueError("give at least one waveform")
    return clips


def _mono(clip: Any) -> np.ndarray:
    """Return a waveform (T,) as float32 in [-1, 1]."""
    samples = clip.detach().cpu().numpy() if isinstance(clip, torch.Tensor) else np.asarray(clip)
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"a clip is one channel of samples (T,), not {samples.shape}")
    floats = samples.astype(np.float32)
    return floats / np.float32(INT16_SCALE) if samples.dtype == np.int16 else floats
