"""Phrases with times that a checkpoint with a tagging head finds in clips, where the source has no strong labels.

Shapes: B = clips, T = samples, S = frames, K = tags.
"""

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.dataset import phrases
from pipeline.dataset.phrases import Phrase
from pipeline.graph import tag_predictor
from pipeline.graph.engine import ActorConfig
from pipeline.graph.frame_tagger_config import FLAG, FrameTaggerConfig
from pipeline.graph.shard_batch import Samples
from pipeline.graph.short_memory import BatchSize
from pipeline.sources.clip import Event


def revision(config: FrameTaggerConfig) -> str:
    """Return the revision of the tagger, '' where none is named. Raises InputError for a checkpoint without a head."""
    return tag_predictor.describe(FLAG, config.tagger).revision if config.tagger else ""


class FrameTagger:
    """The tagger in an actor. Two threads call it."""

    def __init__(self, config: FrameTaggerConfig, actors: ActorConfig, batch_size: int) -> None:
        """Load the checkpoint. Batches are smaller than `batch_size` once the GPU's memory was short."""
        from train import checkpoint

        self.config, self.device = config, actors.torch_device()
        self.model = checkpoint.load(config.tagger).model.to(self.device)
        self.batch_size = BatchSize(batch_size)
        self.model_lock = threading.Lock()

    def tag(
        self, waveform: Samples, num_samples: Sequence[int], rate_hz: int, tags: Sequence[Sequence[str]]
    ) -> list[list[Phrase]]:
        """Return the phrases of clips (B, T) of true lengths, given the tags of each."""
        with self.model_lock:
            return self.batch_size.run(
                len(tags), lambda chosen: self._tag(waveform[chosen], num_samples[chosen], rate_hz, tags[chosen])
            )

    def _tag(
        self, waveform: Samples, num_samples: Sequence[int], rate_hz: int, tags: Sequence[Sequence[str]]
    ) -> list[list[Phrase]]:
        import torch

        lengths = torch.tensor(num_samples, device=self.device)
        found = self.model.tag_frames(torch.tensor(waveform, device=self.device), lengths, rate_hz)
        probabilities, counts = found.probabilities.float().cpu().numpy(), found.num_frames.tolist()
        edges = found.edges_s.cpu().numpy()
        return [
            self._phrases(own[:count], edges[: count + 1], length / rate_hz, given)
            for own, count, length, given in zip(probabilities, counts, num_samples, tags, strict=True)
        ]

    def _phrases(
        self,
        probabilities: npt.NDArray[np.float32],
        edges_s: npt.NDArray[np.float32],
        end_s: float,
        tags: Sequence[str],
    ) -> list[Phrase]:
        """Return the phrases of one clip from its probabilities (S, K), the frames lying between edges (S + 1,)."""
        known = self.model.tags
        wanted = [row for row, tag in enumerate(known) if tag in tags] or range(len(known))
        events = [
            Event(known[row], start_s, stop_s)
            for row in wanted
            for start_s, stop_s in segments(probabilities[:, row] >= self.config.threshold, edges_s, self.config)
        ]
        return phrases.of_events(events, end_s)


def segments(
    active: npt.NDArray[np.bool_], edges_s: npt.NDArray[np.float32], config: FrameTaggerConfig
) -> list[tuple[float, float]]:
    """Return the segments of active frames (S,) that lie between edges (S + 1,): gaps closed first, short ones left out."""
    change = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]])))
    joined: list[tuple[float, float]] = []
    for start, stop in zip(edges_s[change[::2]].tolist(), edges_s[change[1::2]].tolist(), strict=True):
        if joined and start - joined[-1][1] <= config.max_gap_s:
            joined[-1] = joined[-1][0], stop
        else:
            joined.append((start, stop))
    return [(start, stop) for start, stop in joined if stop - start >= config.min_s]
