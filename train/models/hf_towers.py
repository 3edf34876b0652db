"""Two towers of transformers behind the interface of ours: ClapModel, fused and unfused.

The front end, its rate, the padding of short clips, the tokenizer and the scale are those of the model's own processor. The
folder that `HfTowers.save` writes is again one that transformers loads.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as nnf

from train.models.clap import Encode, TwoTowers
from train.models.configs import HfTowersConfig
from train.models.encoders.encoder import Waveform, Windows
from train.models.encoders.htsat import Htsat
from train.models.text import TextTower

ARCHITECTURES = ("clap",)  # values of `model_type` in config.json
NOT_POLICY = ("processor_class", "feature_extractor_type", "nb_frequency_bins")


class HfTextTower(TextTower):
    """The text tower of a ClapModel, with the tokenizer of its processor."""

    def __init__(self, model: Any, wrapped: Any, max_tokens: int, embedding_dim: int) -> None:
        super().__init__()
        self.model, self.embedding_dim = model, embedding_dim
        self.tokenizer = Tokenizer.from_str(wrapped.backend_tokenizer.to_str())
        self.tokenizer.enable_truncation(max_tokens)
        self.tokenizer.no_padding()
        self.pad, self.left = int(wrapped.pad_token_id), wrapped.padding_side == "left"

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Map ids (B, L) and their mask (B, L) to (B, D)."""
        pooled: Tensor = self.model(input_ids=tokens, attention_mask=mask).pooler_output
        return pooled

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return ids and mask, both (B, L), padded to the longest text as the processor does."""
        ids = [torch.tensor(encoding.ids) for encoding in self.tokenizer.encode_batch(list(texts))]
        side = "left" if self.left else "right"
        tokens = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.pad, padding_side=side)
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True, padding_side=side)
        return tokens, mask


class HfTowers(TwoTowers):
    """A ClapModel, its parts taken apart into towers and projections."""

    config: HfTowersConfig
    audio_encoder: Htsat
    text_encoder: HfTextTower

    def __init__(self, config: HfTowersConfig, model: Any, processor: Any) -> None:
        super().__init__()
        self.config, self.architecture, self.processor = config, model.config, processor
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

    @staticmethod
    def unit(vectors: Tensor) -> Tensor:
        """Scale rows to length 1, as transformers does."""
        return nnf.normalize(vectors.float(), dim=-1)

    def save(self, folder: Path) -> None:
        """Write the model and its processor as transformers does."""
        from transformers import ClapModel

        with torch.device("meta"):
            whole: Any = ClapModel(self.architecture)
        whole.audio_model, whole.audio_projection = self.audio_encoder.model, self.audio_proj
        whole.text_model, whole.text_projection = self.text_encoder.model, self.text_proj
        whole.logit_scale_a, whole.logit_scale_t = self.logit_scale, self.logit_scale_t
        weights = {name: tensor.detach().contiguous().cpu() for name, tensor in whole.state_dict().items()}
        _quiet()
        whole.save_pretrained(folder, state_dict=weights)
        self.processor.save_pretrained(folder)


def load(folder: Path) -> HfTowers:
    """Load what transformers wrote, in eval mode. It runs no code of the folder and needs no network.

    Raises:
        ValueError: when config, processor or weights are missing, damaged, or not those of two towers; says which.
    """
    from transformers import AutoConfig, ClapModel

    _quiet()
    try:
        config, processor = AutoConfig.from_pretrained(folder), _processor(folder)
        loaded: Any = ClapModel.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            weights_only=True,
        )
    except (OSError, RuntimeError, SafetensorError, TypeError, KeyError) as error:
        raise ValueError(str(error).strip().partition("\n")[0]) from error
    model, report = loaded
    if wrong := sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}):
        raise ValueError(f"{len(wrong)} of its weights are missing or differ in shape: {wrong[0]}, ...")
    return HfTowers(_config(config, processor), model, processor).eval()


def _config(architecture: Any, processor: Any) -> HfTowersConfig:
    extractor, tokenizer, text = processor.feature_extractor, processor.tokenizer, architecture.text_config
    fusion = bool(architecture.audio_config.enable_fusion)
    if fusion != (extractor.truncation == "fusion"):
        raise ValueError(f"its network has enable_fusion {fusion}, its processor truncation {extractor.truncation!r}")
    stated = {name: value for name, value in extractor.to_dict().items() if name not in NOT_POLICY}
    return HfTowersConfig(
        transformers=architecture.model_type,
        joint_dim=architecture.projection_dim,
        clip_s=float(extractor.max_length_s),
        sample_rate_hz=extractor.sampling_rate,
        long_clips="fusion" if fusion else "windows",
        max_tokens=min(tokenizer.model_max_length, text.max_position_embeddings - text.pad_token_id - 1),
        processor={**stated, "tokenizer": type(tokenizer).__name__},
    )


def _processor(folder: Path) -> Any:
    from transformers import ClapProcessor

    processor = ClapProcessor.from_pretrained(folder)
    tokenizer = processor.tokenizer
    if not getattr(tokenizer, "is_fast", False) or tokenizer.pad_token_id is None:
        raise ValueError("its tokenizer is not a fast one that pads")
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # transformers makes one where the files are missing
        raise ValueError("it has no tokenizer: tokenizer.json or vocab.json is missing")
    return processor


def _quiet() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()  # what is missing is an error above
    logging.disable_progress_bar()
