"""The captioner's word decoder over whole captions; `cache.py` decodes one word at a time.

Shapes: B = clips, S = frame embeddings, L = words, V = vocabulary, D = width.
Architecture: wsntxxn/AudioCaption (`EventTransformerDecoder`, 2022); parameter names are theirs. One correction: the table
of positions is a buffer, while the later code of the reference overwrites it when it initialises its weights.
"""

import math

import torch
from torch import Tensor, nn

from train.models.captioner.vocabulary import PAD
from train.models.encoders.encoder import frame_mask

MAX_POSITIONS = 100


class PositionalEncoding(nn.Module):
    """The sinusoid of Vaswani et al. 2017."""

    pe: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        angle = torch.arange(MAX_POSITIONS)[:, None] * torch.exp(torch.arange(0, dim, 2) * (-math.log(1e4) / dim))
        table = torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)
        self.register_buffer("pe", table[:, None])  # (positions, 1, dim), the reference's layout


class WordDecoder(nn.Module):
    """Transformer decoder over words, attending to the audio memory."""

    def __init__(
        self,
        *,
        num_words: int,
        memory_dim: int,
        dim: int,
        layers: int,
        heads: int,
        feedforward: int,
        dropout: float,
        bias: bool,
    ) -> None:
        super().__init__()
        self.dim, self.heads = dim, heads
        self.dropout = nn.Dropout(dropout)
        self.word_embedding = nn.Embedding(num_words, dim)
        self.pos_encoder = PositionalEncoding(dim)
        layer = nn.TransformerDecoderLayer(dim, heads, feedforward, dropout, batch_first=True)
        self.model = nn.TransformerDecoder(layer, layers)
        self.classifier = nn.Linear(dim, num_words, bias=bias)
        self.attn_proj = nn.Sequential(nn.Linear(memory_dim, dim), nn.ReLU(), nn.Dropout(dropout), nn.LayerNorm(dim))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, words: Tensor, memory: Tensor, num_frames: Tensor, guidance: Tensor) -> Tensor:
        """Score the word after each prefix.

        Args:
            words: (B, L) ids.
            memory: (B, S, memory_dim).
            num_frames: (B,) valid frames of the memory.
            guidance: (B, D) tag vector, added at every position.

        Returns:
            Logits (B, L, V).
        """
        length = words.shape[1]
        x = self.embed(words, guidance[:, None], self.pos_encoder.pe[:length, 0])
        causal = torch.ones(length, length, dtype=torch.bool, device=words.device).triu(1)
        x = self.model(
            x,
            self.attn_proj(memory),
            tgt_mask=causal,
            tgt_key_padding_mask=words == PAD,
            memory_key_padding_mask=~frame_mask(num_frames, memory.shape[1]),
        )
        logits: Tensor = self.classifier(x)
        return logits

    def embed(self, words: Tensor, guidance: Tensor, positions: Tensor) -> Tensor:
        """Sum the embeddings of words, the guidance and the encodings of positions, which broadcast to (…, D)."""
        embedded: Tensor = self.dropout(self.word_embedding(words)) * math.sqrt(self.dim)
        return self.dropout(embedded + guidance + positions)
