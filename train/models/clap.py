"""Two towers in one space: BLAT's contrastive model.

Shapes: B = pairs, T = samples, L = tokens, D = joint size. Layout and numerics: the released BLAT code.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as nnf

from train.models import text as text_tower
from train.models.cnn14 import Cnn14, Cnn14Config
from train.models.text import TextConfig, TextEncoder

INITIAL_TEMPERATURE = 0.07


@dataclass(frozen=True, kw_only=True)
class ClapConfig:
    """The two-tower model. The defaults are BLAT's."""

    audio: Cnn14Config = field(default_factory=Cnn14Config)
    """Audio tower."""
    text: TextConfig = field(default_factory=TextConfig)
    """Text tower."""
    joint_dim: int = 1024
    """Size of the shared space."""
    clip_s: float = 10.0
    """Clips are zero-padded to this length, seconds; longer ones become windows of it, averaged by length."""


class Clap(nn.Module):
    """Audio and text -> unit vectors whose dot product is their similarity."""

    def __init__(self, config: ClapConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.config, self.tokenizer = config, tokenizer
        self.audio_encoder = Cnn14(config.audio)
        self.text_encoder = TextEncoder(config.text, tokenizer.get_vocab_size())
        self.audio_proj = nn.Linear(self.audio_encoder.embedding_dim, config.joint_dim)
        self.text_proj = nn.Linear(self.text_encoder.embedding_dim, config.joint_dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / INITIAL_TEMPERATURE)))

    @property
    def clip_samples(self) -> int:
        """Samples of the fixed input length."""
        return round(self.config.clip_s * self.config.audio.sample_rate_hz)

    def forward(
        self, waveform: Tensor, num_samples: Tensor, tokens: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return unit audio (B, D) and text (B, D) embeddings and the logit scale exp(s)."""
        return self.encode_audio(waveform, num_samples), self.encode_text(tokens, mask), self.logit_scale.exp()

    def encode_audio(self, waveform: Tensor, num_samples: Tensor) -> Tensor:
        """Embed clips (B, T), zero-padded, with true lengths (B,)."""
        return nnf.normalize(self.audio_proj(self.audio_encoder(waveform, num_samples).clip), dim=-1, eps=1e-7)

    @torch.no_grad()
    def embed_clips(self, clips: Sequence[np.ndarray]) -> Tensor:
        """Embed clips of any length, each an int16 or float array (T,): the policy for everything but training.

        A clip is cut into windows of the fixed length, the last one zero-padded, and averaged by their true length.
        """
        size, device = self.clip_samples, self.logit_scale.device
        windows = [
            (i, clip[start : start + size]) for i, clip in enumerate(clips) for start in range(0, len(clip), size)
        ]
        owner = torch.tensor([i for i, _ in windows], device=device)
        length = torch.tensor([len(window) for _, window in windows], device=device)
        padded = np.stack([np.pad(window, (0, size - len(window))) for _, window in windows])
        vectors = self.encode_audio(torch.from_numpy(padded).to(device), length)
        total = torch.zeros(len(clips), vectors.shape[1], device=device).index_add_(0, owner, vectors * length[:, None])
        return nnf.normalize(total, dim=-1)

    def encode_text(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Embed token ids (B, L)."""
        return nnf.normalize(self.text_proj(self.text_encoder(tokens, mask)), dim=-1, eps=1e-7)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return ids and mask (B, L) on the CPU."""
        return text_tower.tokenize(self.tokenizer, texts, self.config.text.max_tokens)
