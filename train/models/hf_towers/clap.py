"""ClapModel, fused and unfused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from train.models.clap import Encode
from train.models.configs import HfTowersConfig
from train.models.encoders.encoder import Waveform, Windows
from train.models.encoders.htsat import Htsat
from train.models.hf_towers.towers import HfTextTower, HfTowers, check_tokenizer, read_weights, stated


class HfClap(HfTowers):
    """A ClapModel."""

    audio_encoder: Htsat

    def __init__(self, config: HfTowersConfig, model: Any, processor: Any) -> None:
        super().__init__(config, model.config, processor)
        text_dim = model.text_projection.linear1.in_features
        self.audio_encoder = Htsat(model.audio_model, processor.feature_extractor)
        self.text_encoder = HfTextTower(model.text_model, processor.tokenizer, config.max_tokens, text_dim)
        self.audio_proj, self.text_proj = model.audio_projection, model.text_projection
        self.logit_scale, self.logit_bias = model.logit_scale_a, None
        self.logit_scale_t = model.logit_scale_t.requires_grad_(False)  # one scale is trained, as in LAION's loss

    def encode_windows(self, clips: Sequence[Waveform], size: int, encode: Encode) -> tuple[Windows, Tensor]:
        """See `TwoTowers`; a network with fusion takes each clip whole, and longer ones one by one."""
        if self.config.long_clips == "windows":
            return super().encode_windows(clips, size, encode)
        whole = Windows(clips, max(map(len, clips)))
        short = [row for row, length in enumerate(whole.lengths) if length <= size]
        found: dict[int, Tensor] = {}
        for rows in ([short] if short else []) + [[row] for row in range(len(clips)) if row not in short]:
            _, features = super().encode_windows(
                [clips[row] for row in rows], max(len(clips[row]) for row in rows), encode
            )
            found |= dict(zip(rows, features, strict=True))
        return whole, torch.stack([found[row] for row in range(len(clips))])

    def whole(self) -> Any:
        """See `HfTowers`."""
        from transformers import ClapModel

        with torch.device("meta"):
            whole: Any = ClapModel(self.architecture)
        whole.audio_model, whole.audio_projection = self.audio_encoder.model, self.audio_proj
        whole.text_model, whole.text_projection = self.text_encoder.model, self.text_proj
        whole.logit_scale_a, whole.logit_scale_t = self.logit_scale, self.logit_scale_t
        return whole


def load(folder: Path, architecture: Any) -> HfClap:
    """Load one from a folder with its config; raises as `loading.load`."""
    from transformers import ClapModel, ClapProcessor

    processor = ClapProcessor.from_pretrained(folder)
    check_tokenizer(processor.tokenizer)
    model = read_weights(ClapModel, folder, architecture)
    return HfClap(_config(architecture, processor), model, processor)


def _config(architecture: Any, processor: Any) -> HfTowersConfig:
    extractor, tokenizer, text = processor.feature_extractor, processor.tokenizer, architecture.text_config
    fusion = bool(architecture.audio_config.enable_fusion)
    if fusion != (extractor.truncation == "fusion"):
        raise ValueError(f"its network has enable_fusion {fusion}, its processor truncation {extractor.truncation!r}")
    return HfTowersConfig(
        transformers=architecture.model_type,
        joint_dim=architecture.projection_dim,
        clip_s=float(extractor.max_length_s),
        sample_rate_hz=extractor.sampling_rate,
        long_clips="fusion" if fusion else "windows",
        max_tokens=min(tokenizer.model_max_length, text.max_position_embeddings - text.pad_token_id - 1),
        processor=stated(processor),
    )
