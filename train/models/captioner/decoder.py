"""The captioner's word decoder: teacher forcing over whole captions, and one word at a time with cached keys and values.

Shapes: B = clips, S = frame embeddings, L = words, V = vocabulary, D = width, H = heads, R = B * K rows, K of each clip.
Architecture: wsntxxn/AudioCaption (`EventTransformerDecoder`, 2022); parameter names are theirs. One correction: the table
of positions is a buffer, while the later code of the reference overwrites it when it initialises its weights.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

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
        x = self._embed(words, guidance[:, None], self.pos_encoder.pe[:length, 0])
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

    def _embed(self, words: Tensor, guidance: Tensor, positions: Tensor) -> Tensor:
        embedded: Tensor = self.dropout(self.word_embedding(words)) * math.sqrt(self.dim)
        return self.dropout(embedded + guidance + positions)


class DecoderCache:
    """Decode one word at a time, each row from its own prefix. All shapes stay fixed from the first word to the last.

    Keys and values of the memory exist once per clip, for any number of rows. Only the memory has dropout.
    """

    def __init__(
        self,
        decoder: WordDecoder,
        memory: Tensor,
        num_frames: Tensor,
        guidance: Tensor,
        rows_per_clip: int,
        max_words: int,
    ) -> None:
        """Allocate keys and values of `max_words` words."""
        self.decoder, self.rows_per_clip = decoder, rows_per_clip
        self.guidance = guidance.repeat_interleave(rows_per_clip, dim=0)
        self.frames = frame_mask(num_frames, memory.shape[1])[:, None, None]  # (B, 1, 1, S)
        self.position = 0
        self.words = torch.zeros(len(self.guidance), max_words, dtype=torch.bool, device=memory.device)  # not padding
        projected = decoder.attn_proj(memory)
        self.memory = [self._project(layer.multihead_attn, projected, (1, 2)) for layer in decoder.model.layers]
        shape = (len(self.guidance), decoder.heads, max_words, decoder.dim // decoder.heads)
        blank = self.memory[0][0].new_zeros(shape)
        self.past = [(blank.clone(), blank.clone()) for _ in decoder.model.layers]

    def step(self, words: Tensor, parents: Tensor) -> Tensor:
        """Append a word to each row and score the next.

        Args:
            words: (R,) ids.
            parents: (R,) row whose prefix each row continues.

        Returns:
            Log-probabilities (R, V), float32.
        """
        t, decoder = self.position, self.decoder
        self.words = self.words[parents]
        self.words[:, t] = words != PAD
        x = decoder._embed(words, self.guidance, decoder.pos_encoder.pe[t, 0])  # (R, D)
        for i, layer in enumerate(decoder.model.layers):
            self.past[i] = (self.past[i][0][parents], self.past[i][1][parents])
            x = layer.norm1(x + self._attend_to_words(layer.self_attn, x, *self.past[i]))
            x = layer.norm2(x + self._attend_to_audio(layer.multihead_attn, x, *self.memory[i]))
            x = layer.norm3(x + layer.linear2(nnf.relu(layer.linear1(x))))
        self.position = t + 1
        return nnf.log_softmax(decoder.classifier(x).float(), dim=-1)

    def _attend_to_words(self, attention: nn.MultiheadAttention, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        query, key, value = self._project(attention, x[:, None], (0, 1, 2))  # (R, H, 1, D / H)
        keys[:, :, self.position], values[:, :, self.position] = key[:, :, 0], value[:, :, 0]
        attended = nnf.scaled_dot_product_attention(query, keys, values, attn_mask=self.words[:, None, None])
        return attention.out_proj(attended.flatten(1))

    def _attend_to_audio(self, attention: nn.MultiheadAttention, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        (query,) = self._project(attention, x.view(-1, self.rows_per_clip, x.shape[1]), (0,))  # (B, H, K, D / H)
        attended = nnf.scaled_dot_product_attention(query, keys, values, attn_mask=self.frames)
        return attention.out_proj(attended.transpose(1, 2).reshape(x.shape))

    def _project(self, attention: nn.MultiheadAttention, x: Tensor, which: tuple[int, ...]) -> list[Tensor]:
        """Map (B, L, D) to queries (0), keys (1) or values (2) of shape (B, H, L, D / H)."""
        weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        return [
            nnf.linear(x, weights[i], biases[i]).unflatten(2, (self.decoder.heads, -1)).transpose(1, 2) for i in which
        ]
