"""Tiny CLAPs of transformers with random weights and their real processors, saved as on the hub."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = [
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    *["a", "the", "dog", "barks", "rain", "falls", "low", "hum", "middle", "tone", "high", "whistle", "sound", "of"],
]
KINDS = ("unfused", "fused")


def save(folder: Path, kind: str = "unfused") -> Path:
    """Save a ClapModel of a kind, with its processor; return the folder."""
    fused = kind == "fused"
    torch.manual_seed(1)
    config = transformers.ClapConfig(
        projection_dim=16,
        text_config={
            "vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 16, "max_position_embeddings": 14, "projection_dim": 16,
        },
        audio_config={
            "patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [1, 2], "hidden_size": 16,
            "projection_dim": 16, "enable_fusion": fused, "fusion_type": "aff_2d" if fused else None,
        },
    )  # fmt: skip
    model = transformers.ClapModel(config)
    for name, parameter in model.named_parameters():  # larger than a start of training: sounds and texts differ
        if not name.startswith("logit_scale"):
            torch.nn.init.normal_(parameter, std=0.3)
    statistics = model.audio_model.audio_encoder.batch_norm
    statistics.running_mean.fill_(-30.0)
    statistics.running_var.fill_(400.0)
    extractor = transformers.ClapFeatureExtractor(truncation="fusion" if fused else "rand_trunc")
    model.save_pretrained(folder)
    transformers.ClapProcessor(extractor, tokenizer()).save_pretrained(folder)
    return folder


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Return a tokenizer of words with the special tokens of RoBERTa."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_max_length=512,
    )  # fmt: skip
