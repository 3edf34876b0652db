"""Base of the audio encoders: waveform -> frame embeddings with their mask, and one clip embedding.

Shapes: B = clips, T = samples, S = frame embeddings in time, D = embedding size; N = whole clips, W = their windows.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from train.models.encoders import frontend

MAX_WINDOWS = 64  # in one pass of a network: long clips take no more memory than short ones
Waveform = npt.NDArray[np.int16] | npt.NDArray[np.floating[Any]]  # (T,)


class AudioFeatures(NamedTuple):
    """Output of an audio encoder."""

    frames: Tensor  # (B, S, D)
    num_frames: Tensor  # (B,) valid frames of each clip, at least 1
    clip: Tensor  # (B, D)

    @property
    def mask(self) -> Tensor:
        """(B, S) bool: True where a frame is real."""
        return frame_mask(self.num_frames, self.frames.shape[1])


class FrameProbabilities(NamedTuple):
    """What a tagger finds in the frames of clips."""

    probabilities: Tensor  # (B, S, K) of each tag
    num_frames: Tensor  # (B,) valid frames of each clip
    edges_s: Tensor  # (S + 1,) see `AudioEncoder.frame_edges_s`


class ClipEmbeddings(NamedTuple):
    """Vectors of whole clips, averaged over their windows."""

    features: Tensor  # (N, E) clip embeddings of the audio encoder
    outputs: Tensor  # (N, D) of the model: unit vectors of the shared space, or probabilities of its tags


class Windows:
    """Clips of any length, cut into windows of one length; the last window of a clip may be shorter."""

    def __init__(self, clips: Sequence[Waveform], size: int) -> None:
        """Take N arrays (T,) of one type, and the length of a window in samples."""
        cut = [(i, clip[start : start + size]) for i, clip in enumerate(clips) for start in range(0, len(clip), size)]
        self.num_clips, self.size = len(clips), size
        self.clip_index, self.windows = [i for i, _ in cut], [window for _, window in cut]
        self.lengths = [len(window) for window in self.windows]

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the windows in order, zero-padded (B, size), and their true lengths (B,)."""
        for first in range(0, len(self.windows), MAX_WINDOWS):
            rows = slice(first, first + MAX_WINDOWS)
            padded = np.stack([np.pad(each, (0, self.size - len(each))) for each in self.windows[rows]])
            yield torch.from_numpy(padded), torch.tensor(self.lengths[rows])

    def padded(self, network: Callable[[Tensor, Tensor], Tensor], device: torch.device) -> Tensor:
        """Return the outputs (W, D) of a network of waveforms (B, size), zero-padded, and true lengths (B,)."""
        return torch.cat([network(waveform.to(device), lengths.to(device)) for waveform, lengths in self.batches()])

    def unpadded(self, network: Callable[[Tensor, Tensor], Tensor], device: torch.device) -> Tensor:
        """Return the outputs (W, D) of a network of waveforms (B, T) and lengths (B,), windows of one length at a time."""
        lengths = np.array(self.lengths)
        found: dict[int, Tensor] = {}
        for length in np.unique(lengths).tolist():
            alike = np.flatnonzero(lengths == length).tolist()
            for rows in (alike[first : first + MAX_WINDOWS] for first in range(0, len(alike), MAX_WINDOWS)):
                waveform = torch.from_numpy(np.stack([self.windows[row] for row in rows])).to(device)
                outputs = network(waveform, torch.full((len(rows),), length, device=device))
                found |= dict(zip(rows, outputs, strict=True))
        return torch.stack([found[row] for row in range(len(lengths))])

    def mean(self, vectors: Tensor) -> Tensor:
        """Return the means (N, D) over the windows of each clip of vectors (W, D), weighted by the length of the window."""
        lengths = torch.tensor(self.lengths, device=vectors.device, dtype=vectors.dtype)
        clip_index = torch.tensor(self.clip_index, device=vectors.device)
        total = torch.zeros(self.num_clips, vectors.shape[1], device=vectors.device, dtype=vectors.dtype)
        weight = torch.zeros(self.num_clips, device=vectors.device, dtype=vectors.dtype).index_add_(
            0, clip_index, lengths
        )
        return total.index_add_(0, clip_index, vectors * lengths[:, None]) / weight[:, None]


class AudioEncoder(nn.Module):
    """Base of the encoders: audio -> features of a front end -> a network, which alone is compiled.

    The base converts the audio: a front end gets float32 at the rate of its encoder.
    """

    sample_rate_hz: int
    embedding_dim: int  # D, of frames and clip alike
    statistics_kept = False  # BatchNorm stays in eval mode
    only_for_clip: tuple[str, ...] = ()  # modules that the frame embeddings do not need

    def forward(self, waveform: Tensor, num_samples: Tensor, sample_rate_hz: int | None = None) -> AudioFeatures:
        """Embed zero-padded clips.

        Args:
            waveform: (B, T) int16, or float in [-1, 1].
            num_samples: (B,) true lengths before padding, in T.
            sample_rate_hz: rate of `waveform`, resampled on its device; the encoder's own when left out.
        """
        rate_hz = sample_rate_hz or self.sample_rate_hz
        return self.encode(*frontend.prepare(waveform, num_samples, rate_hz, self.sample_rate_hz))

    def encode(self, waveform: Tensor, num_samples: Tensor) -> AudioFeatures:
        """Embed float32 clips (B, T) at the encoder's own rate."""
        return self.network(*self.front_end(waveform, num_samples))

    def front_end(self, waveform: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of float32 clips (B, T) and their valid frames (B,), as `network` takes them."""
        raise NotImplementedError

    def network(self, features: Tensor, num_frames: Tensor) -> AudioFeatures:
        """Embed the features of a front end."""
        raise NotImplementedError

    def embed_frames(self, frames: Tensor) -> Tensor:
        """Return frame embeddings (B, S, D) in the space of clip embeddings: each as that of a clip of one frame."""
        return frames

    def frame_edges_s(self, count: int) -> Tensor:
        """Return where the frame embeddings of a clip begin and end, (count + 1,) seconds from its start."""
        raise NotImplementedError

    def compile_network(self, backend: str = "inductor") -> Self:
        """Compile the network, once for each shape.

        The front end and resampling stay as they are: nothing fuses with an FFT, and filters are made when first needed.
        The network becomes one graph, for torch compiles at most eight variants of one `forward`, and a MobileNet has 15
        blocks. To be called once the model is on its device. A copy is not compiled.
        """
        self.network = torch.compile(self.network, dynamic=False, backend=backend)  # type: ignore[method-assign]
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "network"}

    def freeze(self) -> Self:
        """Fix weights and BatchNorm statistics for good; dropout stays on in train mode, as in the captioner's recipe."""
        self.statistics_kept = True
        self.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set train or eval mode; BatchNorm stays in eval mode where its statistics are kept, as in a frozen encoder."""
        super().train(mode)
        for module in self.modules():
            if self.statistics_kept and isinstance(module, _BatchNorm):
                module.eval()
        return self


def frame_mask(num_frames: Tensor, size: int) -> Tensor:
    """Return (B, size) bool: True where a frame is real, False where it is padding."""
    return torch.arange(size, device=num_frames.device)[None, :] < num_frames[:, None]


def as_image(image: Tensor, kernel: Tensor) -> Tensor:
    """Return (B, 1, H, W) in the layout of the first kernel (C, 1, h, w), which all that follows keeps.

    Where the two differ, a convolution converts one of them at every call.
    """
    if kernel.stride(1) != 1:  # `is_contiguous` is true of both layouts of a single channel
        return image  # as it is: other strides of the one channel would choose another algorithm, with other rounding
    return image[:, 0].contiguous()[..., None].permute(0, 3, 1, 2)
