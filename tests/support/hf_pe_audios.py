"""Tiny PE-Audios of transformers with random weights and their real processors, saved as on the hub."""

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

from tests.support import hf_claps

KINDS = ("pe_audio", "pe_audio_video")
SCALE, BIAS = 0.5, -1.0
TEXT = {
    "model_type": "modernbert", "vocab_size": len(hf_claps.WORDS), "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 12, "pad_token_id": 1, "bos_token_id": 0,
    "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2,
}  # fmt: skip
AUDIO = {
    "dac_config": {"encoder_hidden_size": 4, "hidden_size": 64, "codebook_dim": 8},
    "hidden_size": 24, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8,
}  # fmt: skip


def save(folder: Path, kind: str = "pe_audio") -> Path:
    """Save a PeAudioModel, or the audio and text towers of a PeAudioVideoModel as that model saves them."""
    torch.manual_seed(1)
    model = transformers.PeAudioModel(transformers.PeAudioConfig(text_config=TEXT, audio_config=AUDIO))
    for name, parameter in model.named_parameters():  # larger than a start of training: sounds and texts differ
        if parameter.dim() > 1 and "alpha" not in name:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    for head in (model.audio_head, model.text_audio_head):  # vectors of several lengths
        torch.nn.init.normal_(head.layer_norm.weight, mean=1.0, std=0.5)
        torch.nn.init.normal_(head.layer_norm.bias, std=0.5)
    torch.nn.init.constant_(model.text_audio_logit_scale, SCALE)
    torch.nn.init.constant_(model.text_audio_logit_bias, BIAS)
    model.save_pretrained(folder)
    if kind == "pe_audio_video":
        config = transformers.PeAudioVideoConfig(text_config=TEXT, audio_video_config={"audio_config": AUDIO})
        config.architectures = ["PeAudioVideoModel"]
        config.save_pretrained(folder)
        weights = {
            name if name.startswith("text_model.") else f"audio_model.{name}": tensor
            for name, tensor in model.state_dict().items()
        }
        save_file(weights | {"video_model.video_head.proj.weight": torch.zeros(16, 24)}, folder / "model.safetensors")
    transformers.PeAudioProcessor(transformers.PeAudioFeatureExtractor(), hf_claps.tokenizer()).save_pretrained(folder)
    return folder


def rewrite(folder: Path, **fields: object) -> None:
    """Change fields of config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
