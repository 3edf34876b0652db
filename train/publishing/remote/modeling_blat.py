"""Published two towers with the methods of transformers' ClapModel.

Shapes: N = clips, T = samples, M = texts, L = tokens, D = joint size.
"""

from typing import Any

import torch
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clap.modeling_clap import ClapOutput

from train.models.clap import Clap
from train.models.configs import ClapConfig, TextConfig
from train.models.encoders.configs import restore as restore_audio
from train.models.text import restore as restore_text
from train.publishing.remote.configuration_blat import BlatConfig


class BlatModel(PreTrainedModel):
    """Audio and text -> unit vectors in one space, and the logits of their similarity."""

    config_class = BlatConfig
    base_model_prefix = "network"
    main_input_name = "input_values"
    _supports_sdpa = True

    def __init__(self, config: BlatConfig) -> None:
        super().__init__(config)
        self.network = _build(config)
        _keep_buffers(self.network.audio_encoder)
        self.post_init()

    def get_audio_features(
        self, input_values: Tensor, num_samples: Tensor | None = None, **_: Any
    ) -> BaseModelOutputWithPooling:
        """Embed clips of any length: longer ones are the mean of their windows, weighted by length.

        Args:
            input_values: (N, T) float in [-1, 1] at the model's rate, zero-padded.
            num_samples: (N,) true lengths; all have T samples when left out.

        Returns:
            `pooler_output` (N, D): unit vectors, in any batch the same.
        """
        network = self.network
        rows = input_values.detach().cpu()
        sizes = [rows.shape[1]] * len(rows) if num_samples is None else num_samples.tolist()
        clips = [row[:size].numpy() for row, size in zip(rows, sizes, strict=True)]

        def encode(waveform: Tensor, lengths: Tensor) -> Tensor:
            features: Tensor = network.audio_encoder(waveform.to(self.device), lengths.to(self.device)).clip
            return features

        windows, features = network.encode_windows(clips, round(network.config.clip_s * network.sample_rate_hz), encode)
        vectors = network.unit(windows.mean(network.unit(network.audio_proj(features))))
        return BaseModelOutputWithPooling(pooler_output=vectors)

    def get_text_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> BaseModelOutputWithPooling:
        """Embed texts: ids (M, L) with their mask -> `pooler_output` (M, D), unit vectors."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return BaseModelOutputWithPooling(pooler_output=self.network.encode_text(input_ids, mask))

    def forward(
        self,
        input_ids: Tensor,
        input_values: Tensor,
        num_samples: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> ClapOutput:
        """Embed clips and texts; `logits_per_audio` (N, M) is the scaled cosine, plus a bias where the model has one."""
        audio = self.get_audio_features(input_values, num_samples)
        text = self.get_text_features(input_ids, attention_mask)
        network = self.network
        assert audio.pooler_output is not None and text.pooler_output is not None
        logits = network.logit_scale.exp() * network.similarity(audio.pooler_output, text.pooler_output)
        if network.logit_bias is not None:
            logits = logits + network.logit_bias
        return ClapOutput(
            logits_per_audio=logits,
            logits_per_text=logits.T,
            text_embeds=text.pooler_output,
            audio_embeds=audio.pooler_output,
            text_model_output=text,
            audio_model_output=audio,
        )


def _build(config: BlatConfig) -> Clap:
    fields = config.network
    described = ClapConfig(**{**fields, "audio": restore_audio(fields["audio"]), "text": TextConfig(**fields["text"])})
    # The words belong to the processor: the network needs no tokenizer.
    text = restore_text(described.text, config.text, Tokenizer(models.WordPiece()))
    with torch.device("cpu"):  # transformers builds models on meta, where mel banks cannot be computed
        return Clap(described, text)


def _keep_buffers(encoder: nn.Module) -> None:
    """Make windows and mel banks part of the weights: transformers drops the value of any other buffer."""
    for module in encoder.modules():
        for name in list(module._non_persistent_buffers_set):
            module.register_buffer(name, getattr(module, name))
