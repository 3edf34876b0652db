"""The tag-guided captioner: CNN -> bidirectional GRU -> Transformer decoder with the mean tag embedding at every step.

Shapes: B = clips, S = frame embeddings, L = tokens, K = known tags, V = words. Architecture: wsntxxn/AudioCaption
(`EventTransformerDecoder`, 2022), the group of BLAT; parameter names are theirs. Two corrections: the positional table is a
true buffer, and a clip without tags gets a zero tag vector instead of NaN.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from train.models import beam
from train.models.cnn14 import AudioFeatures, Cnn14, Cnn14Config, frame_mask
from train.models.words import PAD, Vocabulary

MAX_POSITIONS = 100


@dataclass(frozen=True, kw_only=True)
class CaptionerConfig:
    """The captioner. The defaults are the released AudioCaps model's."""

    audio: Cnn14Config = field(default_factory=Cnn14Config)
    """The CNN under the GRU."""
    clip_s: float = 10.0
    """Every clip is cut or zero-padded to this length, seconds: one policy, so that a batch gives what single clips give."""
    gru_layers: int = 3
    """Bidirectional GRU layers."""
    gru_dim: int = 256
    """GRU units per direction."""
    model_dim: int = 256
    """Width of the Transformer decoder and of a tag embedding."""
    decoder_layers: int = 2
    """Transformer decoder layers, post-norm."""
    decoder_heads: int = 4
    """Attention heads."""
    decoder_feedforward: int = 1024
    """Width of the feed-forward layers."""
    dropout: float = 0.2
    """Decoder dropout; the GRU uses 0.5 between its layers."""


class TagGuidedCaptioner(nn.Module):
    """Audio and tags -> word log-probabilities; `generate` writes captions."""

    def __init__(self, config: CaptionerConfig, vocabulary: Vocabulary, tags: Sequence[str]) -> None:
        super().__init__()
        self.config, self.vocabulary, self.tags = config, vocabulary, list(tags)
        self.tag_ids = {tag: index for index, tag in enumerate(self.tags)}
        self.encoder = AudioEncoder(config)
        self.decoder = WordDecoder(config, len(vocabulary))
        self.label_encoder = TagEncoder(len(self.tags), config.model_dim)
        self.tagger = nn.Linear(self.encoder.cnn.embedding_dim, len(self.tags))

    def multi_hot(self, tags: Sequence[Sequence[str]]) -> Tensor:
        """Return (B, K) float: 1 where a clip has the tag; unknown tags are ignored."""
        y = torch.zeros(len(tags), len(self.tags))
        for row, names in enumerate(tags):
            y[row, [self.tag_ids[name] for name in names if name in self.tag_ids]] = 1.0
        return y

    def forward(self, waveform: Tensor, num_samples: Tensor, tags: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Score a caption given its own prefix (teacher forcing).

        Args:
            waveform: (B, T) int16 or float, padded to the fixed length.
            num_samples: (B,) true lengths.
            tags: (B, K) multi-hot guidance; a zero row is a clip without guidance.
            words: (B, L) ids: start, words, end, pad.

        Returns:
            Logits (B, L - 1, V) of the next word, and tag logits (B, K) of the CNN alone.
        """
        features, memory = self.encoder(waveform, num_samples)
        logits = self.decoder(words[:, :-1], memory, features.num_frames, self.label_encoder(tags))
        return logits, self.tagger(features.clip)

    @torch.no_grad()
    def generate(self, waveform: Tensor, num_samples: Tensor, tags: Tensor, beams: int) -> list[list[beam.Hypothesis]]:
        """Write captions by beam search; see `forward` for shapes. Returns each clip's hypotheses, best first."""
        features, memory = self.encoder(waveform, num_samples)
        attention = self.decoder.project(memory).repeat_interleave(beams, dim=0)
        num_frames = features.num_frames.repeat_interleave(beams, dim=0)
        guidance = self.label_encoder(tags).repeat_interleave(beams, dim=0)

        def step(prefixes: Tensor) -> Tensor:
            logits = self.decoder.decode(prefixes, attention, num_frames, guidance)
            return nnf.log_softmax(logits[:, -1].float(), dim=-1)

        return beam.search(step, len(waveform), beams, waveform.device)


class AudioEncoder(nn.Module):
    """CNN14 and a bidirectional GRU over its frame embeddings."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.cnn = Cnn14(config.audio)
        self.rnn = Gru(self.cnn.embedding_dim, config.gru_dim, config.gru_layers)

    def forward(self, waveform: Tensor, num_samples: Tensor) -> tuple[AudioFeatures, Tensor]:
        """Return the CNN's features and the attention memory (B, S, 2 * gru_dim)."""
        features = self.cnn(waveform, num_samples)
        return features, self.rnn(features.frames, features.num_frames)


class Gru(nn.Module):
    """A bidirectional GRU that stops at each clip's true length."""

    def __init__(self, in_dim: int, dim: int, layers: int) -> None:
        super().__init__()
        dropout = 0.5 if layers > 1 else 0.0
        self.network = nn.GRU(in_dim, dim, layers, batch_first=True, bidirectional=True, dropout=dropout)

    def forward(self, frames: Tensor, num_frames: Tensor) -> Tensor:
        """Map (B, S, D) to (B, S, 2 * dim), zero after each clip's end."""
        packed = pack_padded_sequence(frames, num_frames.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.network(packed)[0], batch_first=True, total_length=frames.shape[1])[0]


class TagEncoder(nn.Module):
    """Multi-hot tags (B, K) -> the mean of their embeddings (B, D); no tags give zeros."""

    def __init__(self, num_tags: int, dim: int) -> None:
        super().__init__()
        self.label_embedding = nn.Parameter(torch.randn(num_tags, dim))

    def forward(self, tags: Tensor) -> Tensor:
        """Average the embeddings of the tags that are present."""
        return tags @ self.label_embedding / tags.sum(dim=1, keepdim=True).clamp(min=1.0)


class PositionalEncoding(nn.Module):
    """The sinusoid of Vaswani et al. 2017, as a buffer: the reference's later code loses it to its own initialisation."""

    pe: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        angle = torch.arange(MAX_POSITIONS)[:, None] * torch.exp(torch.arange(0, dim, 2) * (-math.log(1e4) / dim))
        table = torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)
        self.register_buffer("pe", table[:, None])  # (positions, 1, dim), the reference's layout

    def forward(self, x: Tensor) -> Tensor:
        """Add positions to (B, L, D)."""
        return x + self.pe[: x.shape[1], 0]


class WordDecoder(nn.Module):
    """Transformer decoder over words, attending to the audio memory."""

    def __init__(self, config: CaptionerConfig, num_words: int) -> None:
        super().__init__()
        dim = config.model_dim
        self.dropout = nn.Dropout(config.dropout)
        self.word_embedding = nn.Embedding(num_words, dim)
        self.pos_encoder = PositionalEncoding(dim)
        layer = nn.TransformerDecoderLayer(
            dim, config.decoder_heads, config.decoder_feedforward, config.dropout, batch_first=True
        )
        self.model = nn.TransformerDecoder(layer, config.decoder_layers)
        self.classifier = nn.Linear(dim, num_words, bias=False)
        self.attn_proj = nn.Sequential(
            nn.Linear(2 * config.gru_dim, dim), nn.ReLU(), nn.Dropout(config.dropout), nn.LayerNorm(dim)
        )
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def project(self, memory: Tensor) -> Tensor:
        """Map the audio memory (B, S, 2 * gru_dim) to the decoder's width, once per clip."""
        projected: Tensor = self.attn_proj(memory)
        return projected

    def forward(self, words: Tensor, memory: Tensor, num_frames: Tensor, guidance: Tensor) -> Tensor:
        """Return logits (B, L, V) of the word after each prefix of `words` (B, L)."""
        return self.decode(words, self.project(memory), num_frames, guidance)

    def decode(self, words: Tensor, attention: Tensor, num_frames: Tensor, guidance: Tensor) -> Tensor:
        """Like `forward`, with the memory projected already."""
        x = self.dropout(self.word_embedding(words)) * math.sqrt(attention.shape[2])
        x = self.dropout(self.pos_encoder(x + guidance[:, None]))  # the same tag vector at every position
        length = words.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=words.device).triu(1)
        x = self.model(
            x,
            attention,
            tgt_mask=causal,
            tgt_key_padding_mask=words == PAD,
            memory_key_padding_mask=~frame_mask(num_frames, attention.shape[1]),
        )
        logits: Tensor = self.classifier(x)
        return logits
