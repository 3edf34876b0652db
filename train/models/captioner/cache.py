"""Decode one word at a time with cached keys and values. Shapes and addresses stay fixed from first to last word.

Shapes: B = clips, S = frame embeddings, M = maximum number of words, V = vocabulary, D = width, H = heads, C = D / H,
R = B * K rows, K of each clip; P = slots of a clip.

The keys and values of a clip's rows lie side by side, one slot for each (position, row). A row attends to the slots of its
own prefix: when a row continues another row's prefix, it takes over a line of the mask, and no key or value moves.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from train.models.captioner.decoder import WordDecoder
from train.models.captioner.vocabulary import PAD
from train.models.encoders.encoder import frame_mask

ALIGNED = 16  # attention kernels of CUDA copy a mask whose rows are no multiple of this


class Affine(NamedTuple):
    """Weight and bias of a linear layer, in the arithmetic of the call."""

    weight: Tensor  # (out, in)
    bias: Tensor | None  # (out,)

    def __call__(self, x: Tensor) -> Tensor:
        """Map (…, in) of any type to (…, out) in the type of the weight."""
        return nnf.linear(x.to(self.weight.dtype), self.weight, self.bias)


class Layer(NamedTuple):
    """One layer of the decoder, with the keys and values of the memory and of the words so far."""

    words_in: Affine  # D -> queries, keys and values
    words_out: Affine
    norm1: nn.Module
    audio_in: Affine  # D -> queries
    audio_out: Affine
    norm2: nn.Module
    up: Affine
    down: Affine
    norm3: nn.Module
    audio: Tensor  # (2, B, H, S, C) keys and values
    words: Tensor  # (2, B, H, P, C)


class DecoderCache:
    """The decoder in the middle of captions, each row with its own prefix.

    `step` changes tensors in place and never waits for the device, so that it can be captured in a CUDA graph. Weights are
    read, and under autocast cast, when the cache is made.
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
        """Project the memory and allocate keys and values of `max_words` words; see `WordDecoder.forward`."""
        device, batch = memory.device, len(memory)
        self.decoder, self.rows_per_clip = decoder, rows_per_clip
        self.dtype = decoder.classifier.weight.dtype
        if torch.is_autocast_enabled(device.type):
            self.dtype = torch.get_autocast_dtype(device.type)
        self.guidance = guidance[:, None].expand(-1, rows_per_clip, -1).flatten(0, 1)  # (R, D)
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        self.slot = torch.arange(rows_per_clip, device=device).repeat(batch)[:, None]  # (R, 1) that each row fills next
        self.shown = torch.zeros((), dtype=self.dtype, device=device)
        self.hidden = torch.full_like(self.shown, float("-inf"))
        slots = _aligned(max_words * rows_per_clip)
        self.prefix = self.hidden.repeat(batch * rows_per_clip, slots)  # (R, P), added to the attention
        with torch.autocast(device.type, enabled=False):
            self.classifier = self._affine(decoder.classifier.weight, decoder.classifier.bias)
            linear, _, dropout, norm = decoder.attn_proj
            assert isinstance(linear, nn.Linear) and isinstance(norm, nn.LayerNorm)
            x = norm(dropout(nnf.relu(self._affine(linear.weight, linear.bias)(memory))).to(norm.weight.dtype))
            x = nnf.pad(x, (0, 0, 0, _aligned(memory.shape[1]) - memory.shape[1]))
            frames = torch.where(frame_mask(num_frames, x.shape[1]), self.shown, self.hidden)
            self.frames = frames[:, None, None]  # (B, 1, 1, S)
            self.layers = [self._layer(layer, x, slots) for layer in decoder.model.layers]

    def step(self, words: Tensor, parents: Tensor) -> Tensor:
        """Append a word to each row and score the next.

        Args:
            words: (R,) ids.
            parents: (R,) row of the same clip whose prefix each row continues.

        Returns:
            Log-probabilities (R, V), float32.
        """
        with torch.autocast(words.device.type, enabled=False):
            self.prefix.copy_(self.prefix.index_select(0, parents))
            shown = torch.where(words == PAD, self.hidden, self.shown)
            self.prefix.scatter_(1, self.slot, shown[:, None])
            positions = self.decoder.pos_encoder.pe.index_select(0, self.position)[:, 0]
            x = self.decoder.embed(words, self.guidance, positions)  # (R, D)
            for layer in self.layers:
                x = layer.norm1(x + self._attend_to_words(layer, x))
                x = layer.norm2(x + self._attend_to_audio(layer, x))
                x = layer.norm3(x + layer.down(nnf.relu(layer.up(x))))
            self.position.add_(1)
            self.slot.add_(self.rows_per_clip)
            return nnf.log_softmax(self.classifier(x).float(), dim=-1)

    def _attend_to_words(self, layer: Layer, x: Tensor) -> Tensor:
        projected = self._heads(layer.words_in(x).view(-1, self.rows_per_clip, 3 * x.shape[1]))  # (3, B, H, K, C)
        layer.words.index_copy_(3, self.slot[: self.rows_per_clip, 0], projected[1:])
        prefix = self.prefix.view(-1, 1, self.rows_per_clip, self.prefix.shape[1])
        attended = nnf.scaled_dot_product_attention(projected[0], layer.words[0], layer.words[1], prefix)
        return layer.words_out(attended.transpose(1, 2).reshape(x.shape))

    def _attend_to_audio(self, layer: Layer, x: Tensor) -> Tensor:
        (query,) = self._heads(layer.audio_in(x).view(-1, self.rows_per_clip, x.shape[1]))
        attended = nnf.scaled_dot_product_attention(query, layer.audio[0], layer.audio[1], self.frames)
        return layer.audio_out(attended.transpose(1, 2).reshape(x.shape))

    def _heads(self, x: Tensor) -> Tensor:
        """Map (B, L, n * D) to (n, B, H, L, C), a view."""
        decoder = self.decoder
        return x.unflatten(2, (-1, decoder.heads, decoder.dim // decoder.heads)).permute(2, 0, 3, 1, 4)

    def _affine(self, weight: Tensor, bias: Tensor | None) -> Affine:
        return Affine(weight.to(self.dtype), None if bias is None else bias.to(self.dtype))

    def _layer(self, layer: nn.TransformerDecoderLayer, memory: Tensor, slots: int) -> Layer:
        def affine(linear: nn.Linear) -> Affine:
            return self._affine(linear.weight, linear.bias)

        dim, decoder = self.decoder.dim, self.decoder
        own, audio = layer.self_attn, layer.multihead_attn
        projected = self._affine(audio.in_proj_weight[dim:], audio.in_proj_bias[dim:])(memory)
        return Layer(
            words_in=self._affine(own.in_proj_weight, own.in_proj_bias),
            words_out=affine(own.out_proj),
            norm1=layer.norm1,
            audio_in=self._affine(audio.in_proj_weight[:dim], audio.in_proj_bias[:dim]),
            audio_out=affine(audio.out_proj),
            norm2=layer.norm2,
            up=affine(layer.linear1),
            down=affine(layer.linear2),
            norm3=layer.norm3,
            audio=self._heads(projected).contiguous(),
            words=projected.new_zeros(2, len(memory), decoder.heads, slots, dim // decoder.heads),
        )


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
